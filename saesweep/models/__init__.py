"""Language models as sources of activations: one small adapter per model library. Knows nothing of SAEs."""

from saesweep.experiment.hook_names import hugging_face_hook, transformer_lens_hook
from saesweep.models.base import LanguageModel, Splice
from saesweep.models.device import resolve_device
from saesweep.models.head import SplitHead
from saesweep.models.inspection import HookPoint, list_hooks
from saesweep.models.late_start import LateStart
from saesweep.models.library import HookNames, SAELensPair, names_of_hook, saelens_pair
from saesweep.models.load import ModelFacts, inspect_model, load_model
from saesweep.models.shape import replace_activations, shape_activations

__all__ = [
    "HookNames",
    "HookPoint",
    "LanguageModel",
    "LateStart",
    "ModelFacts",
    "SAELensPair",
    "Splice",
    "SplitHead",
    "hugging_face_hook",
    "inspect_model",
    "list_hooks",
    "load_model",
    "names_of_hook",
    "replace_activations",
    "resolve_device",
    "saelens_pair",
    "shape_activations",
    "transformer_lens_hook",
]
