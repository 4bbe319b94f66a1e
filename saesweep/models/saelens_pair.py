"""The model class and the hook by which SAELens reads a run's activations."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from saesweep.experiment.hook_names import hugging_face_hook, split_input
from saesweep.models.counterparts import HookNames, model_type_of, names_of_hook
from saesweep.models.library import Library, library_of, locate
from saesweep.specs.model_class import WEIGHT_PROCESSING

if TYPE_CHECKING:
    from saesweep.specs.base_run import BaseRun

CAUSAL = "AutoModelForCausalLM"
HOOKED = "HookedTransformer"


@dataclass(frozen=True)
class SAELensPair:
    """What SAELens' `load_model` and `ActivationsStore` are given: the two fit each other, as names of one library do.

    SAELens loads two kinds of language models: `AutoModelForCausalLM`, of which it reads the outputs of modules and no
    inputs, and `HookedTransformer`, which takes the Hub ids that TransformerLens lists and no folder.
    """

    model_class_name: str
    hook_name: str
    model_from_pretrained_kwargs: dict[str, Any]
    """Arguments of that class's loading call; for `HookedTransformer` all weight processing is off, because it changes
    what hooks hold."""


def saelens_pair(run: BaseRun) -> SAELensPair:
    """Return the pair with which SAELens reads the activations that `run`'s SAE was trained on.

    The run's own class and hook where SAELens takes them; else a hook of the other library that holds the same
    activations. Where no such hook is known for certain, the run's own class and hook: SAELens cannot load those.
    """
    if run.is_synthetic or run.model_name is None:
        return SAELensPair(run.model_class_name, run.hook_name, dict(run.model_from_pretrained_kwargs or {}))
    names = names_of_hook(run, run.hook_name)
    causal = _causal_hook(run, names)
    is_bridge = library_of(run) is Library.TRANSFORMER_LENS
    prefers_lens = is_bridge and not locate(run).is_local
    if names.transformer_lens is not None and (causal is None or prefers_lens):
        return SAELensPair(HOOKED, names.transformer_lens, _kwargs(run, HOOKED))
    if causal is not None:
        return SAELensPair(CAUSAL, causal, _kwargs(run, CAUSAL))
    return SAELensPair(run.model_class_name, run.hook_name, _kwargs(run, CAUSAL))


def _causal_hook(run: BaseRun, names: HookNames) -> str | None:
    """Return the module of `AutoModelForCausalLM` whose output holds the activations; None where none is known."""
    if run.hook_head_index is not None:  # outputs of modules have no axis of heads
        return None
    hook = names.hugging_face
    is_causal_class = run.model_class_name.endswith(("ForCausalLM", "LMHeadModel"))
    if hook is not None and is_causal_class and not split_input(hook)[1]:
        return hook
    model_type = model_type_of(run)
    if model_type is None or names.transformer_lens is None:
        return None
    # The input of a block is the output of the one before it; the embedding's output is not always the first input.
    point = re.sub(
        r"^blocks\.(\d+)\.hook_resid_pre$",
        lambda match: f"blocks.{int(match[1]) - 1}.hook_resid_post",
        names.transformer_lens,
    )
    found = hugging_face_hook(point, model_type)
    return None if found is None or split_input(found)[1] else found


def _kwargs(run: BaseRun, class_name: str) -> dict[str, Any]:
    own = {
        key: value for key, value in (run.model_from_pretrained_kwargs or {}).items() if key not in WEIGHT_PROCESSING
    }
    if class_name == CAUSAL:
        return own
    # HookedTransformer knows no "auto"; its default is float32.
    own = {key: value for key, value in own.items() if key not in ("dtype", "torch_dtype") or value != "auto"}
    return {**own, **dict.fromkeys(WEIGHT_PROCESSING, False)}
