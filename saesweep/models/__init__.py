"""Language models as sources of activations: one small adapter per model library. Knows nothing of SAEs."""
