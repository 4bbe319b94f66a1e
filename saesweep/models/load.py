"""From a run's model fields to a loaded model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saesweep.activity import doing
from saesweep.models.base import LanguageModel
from saesweep.models.device import resolve_device
from saesweep.models.inspection import ModelFacts, inspect_model
from saesweep.models.library import Library, library_of, locate
from saesweep.models.pretrained import loading_kwargs, quiet, read_model, read_tokenizer

if TYPE_CHECKING:
    from saesweep.specs.base_run import BaseRun


def load_model(run: BaseRun) -> LanguageModel:
    """Load the model of `run` on `run.llm_device` (or `run.device`).

    Raises:
        UserError: It cannot be had, an argument or the device does not exist.
    """
    library, location = library_of(run), locate(run)
    field = "base.device" if run.llm_device is None else "base.llm_device"
    device = resolve_device(run.device if run.llm_device is None else run.llm_device, place=field)
    kwargs = loading_kwargs(run.model_from_pretrained_kwargs)
    doing(f"loading {location.name}")
    tokenizer = read_tokenizer(location, kwargs)
    if library is Library.HUGGING_FACE:
        from saesweep.models.huggingface import HuggingFaceModel

        model = read_model(location, kwargs, device, run.model_class_name)
        found = HuggingFaceModel(model, tokenizer, autocast=run.autocast_lm, forward_kwargs=run.model_kwargs)
        if run.compile_llm:
            found.compile(run.llm_compilation_mode)
        return found

    from saesweep.models.bridge import BridgeModel, build_bridge

    model = read_model(location, {"attn_implementation": "eager", **kwargs}, device)
    with quiet():
        bridge = build_bridge(model, tokenizer, location.name, model.dtype, str(device))
    return BridgeModel(bridge, tokenizer, autocast=run.autocast_lm, forward_kwargs=run.model_kwargs)


__all__ = ["ModelFacts", "inspect_model", "load_model"]
