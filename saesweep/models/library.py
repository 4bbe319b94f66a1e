"""Which library runs the model, from SAELens' `model_class_name`."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING

from saesweep.errors import UserError
from saesweep.models.location import ModelLocation, locate_model
from saesweep.specs.model_class import BRIDGE_CLASSES, MODEL_CLASS_ADVICE, is_model_class

if TYPE_CHECKING:
    from saesweep.specs.base_run import BaseRun


class Library(Enum):
    """A model library with an adapter."""

    HUGGING_FACE = "transformers"
    TRANSFORMER_LENS = "TransformerBridge"


def library_of(run: BaseRun) -> Library:
    """Return the library for `run.model_class_name`.

    Raises:
        UserError: There is no adapter for it.
    """
    name = run.model_class_name
    if name in BRIDGE_CLASSES:
        return Library.TRANSFORMER_LENS
    if is_model_class(name):
        return Library.HUGGING_FACE
    raise UserError(f"base.model_class_name: {name!r} is not supported; {MODEL_CLASS_ADVICE}")


def locate(run: BaseRun) -> ModelLocation:
    """Return where the model's files are; classic TransformerLens aliases are resolved for that library.

    Raises:
        UserError: See `locate_model`; or a loading argument would let code run, and the run does not allow it.
        ValueError: The run has no model (the synthetic source).
    """
    if run.model_name is None:
        raise ValueError("this run has no language model")
    if refused := run.refused_arguments:  # for runs that were not read from a file, which is checked before
        raise UserError(f"base.model_from_pretrained_kwargs: {refused[0]}")
    location = locate_model(run.model_name, run.model_from_pretrained_kwargs)
    if library_of(run) is Library.TRANSFORMER_LENS and not location.is_local:
        from saesweep.models.bridge import hub_name

        return replace(location, source=hub_name(location.source))
    return location
