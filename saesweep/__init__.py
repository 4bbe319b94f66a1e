"""saesweep: declarative experiment sweeps for sparse autoencoders."""

__version__ = "0.1.0"
