"""Language models as sources of activations: one small adapter per model library. Knows nothing of SAEs."""

from saesweep.models.base import LanguageModel, Splice
from saesweep.models.device import resolve_device
from saesweep.models.hook_names import transformer_lens_hook
from saesweep.models.load import ModelFacts, inspect_model, load_model
from saesweep.models.shape import replace_activations, shape_activations

__all__ = [
    "LanguageModel",
    "ModelFacts",
    "Splice",
    "inspect_model",
    "load_model",
    "replace_activations",
    "resolve_device",
    "shape_activations",
    "transformer_lens_hook",
]
