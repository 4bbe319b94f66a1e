"""What a run may say of how its language model is loaded: the classes of models, and arguments that let files run code on this machine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

BRIDGE_CLASSES = ("TransformerBridge", "HookedTransformer")
"""Names of TransformerLens' model class: the present one, and that of SAELens' files (up to TransformerLens 3)."""
WEIGHT_PROCESSING = (
    "center_writing_weights",
    "center_unembed",
    "fold_ln",
    "fold_value_biases",
    "refactor_factored_attn_matrices",
)
"""Weight processing of HookedTransformer. It changes the activations, so SAELens' default is off, and here it is refused."""
MODEL_CLASS_ADVICE = (
    "known: AutoModelForCausalLM, TransformerBridge, or a model class of transformers such as AutoModel or BertModel"
)


def is_model_class(name: str) -> bool:
    """Return whether a name can be a model class of transformers; whether it is one, the preflight finds out."""
    return re.fullmatch(r"[A-Z]\w*(Model\w*|For[A-Z]\w+)", name) is not None


OPT_IN = "allow_code_execution"
"""The field of a base run without which none of these arguments is accepted."""

_PYTHON = "lets the model's repository bring Python code that is run here"
_PICKLE = "opens the weights as a pickle, which can run any code"
_KERNELS = "loads compiled code from a repository of the Hub"
_WHEN_TRUE = {
    "trust_remote_code": _PYTHON,
    "custom_generate": _PYTHON,
    "code_revision": _PYTHON,
    "allow_all_kernels": _KERNELS,
    "use_kernels": _KERNELS,
    "kernel_config": _KERNELS,
}
"""Argument -> what it does where it is anything but false or null."""
_WHEN_FALSE = {"weights_only": _PICKLE}
"""Argument -> what it does where it is anything but true: null is false to torch."""
_KERNEL_FIELDS = ("attn_implementation", "_attn_implementation", "experts_implementation")
"""These name a built-in implementation, or a repository of the Hub (`user/name`) whose compiled code is loaded."""


def arguments_that_run_code(kwargs: Mapping[str, Any] | None) -> dict[str, str]:
    """Return the arguments (dotted where they lie deeper) that would let code run, and what each of them does.

    Nested mappings are searched too: `quantization_config`, `adapter_kwargs` and the like are handed on to other loaders.
    """
    return dict(_found(kwargs or {}, ""))


def _found(value: Any, path: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    if isinstance(value, Mapping):
        for key, item in value.items():
            place = f"{path}.{key}" if path else str(key)
            if reason := _reason(str(key), item):
                found.append((place, reason))
            else:
                found += _found(item, place)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            found += _found(item, f"{path}[{index}]")
    return found


def _reason(key: str, value: Any) -> str | None:
    if key in _WHEN_TRUE and value is not None and value is not False:
        return _WHEN_TRUE[key]
    if key in _WHEN_FALSE and value is not True:
        return _WHEN_FALSE[key]
    if key in _KERNEL_FIELDS and _names_repository(value):
        return _KERNELS
    return None


def _names_repository(value: Any) -> bool:
    """Return whether an implementation, or one of those by part of the model, is a repository."""
    parts = value.values() if isinstance(value, Mapping) else (value,)
    return any(isinstance(part, str) and "/" in part for part in parts)


def refusal(argument: str, reason: str) -> str:
    """Return the message about an argument that the run does not allow."""
    return (
        f"{argument} {reason}; leave it out, or, where you trust these files, set base.{OPT_IN}: true "
        f"(--set base.{OPT_IN}=true)"
    )
