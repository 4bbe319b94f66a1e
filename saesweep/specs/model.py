"""The one base class of every configuration model."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Spec(BaseModel):
    """A frozen, strict configuration: unknown keys are errors, and `"1e-4"` is not a number.

    The docstring under a field is its only description: `--help`, the JSON Schema and the reference page show it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)
