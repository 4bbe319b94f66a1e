"""Activations on disk: written once by the language model, then trained from by any number of sweeps."""
