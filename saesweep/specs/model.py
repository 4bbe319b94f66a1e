"""The one base class of every configuration model."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator

from saesweep.specs.units import LARGEST, TOO_LARGE


class Spec(BaseModel):
    """A frozen, strict configuration: unknown keys are errors, and `"1e-4"` is not a number.

    The docstring under a field is its only description: `--help`, the JSON Schema and the reference page show it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)

    @field_validator("*")
    @classmethod
    def _fits_64_bits(cls, value: Any) -> Any:
        for number in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(number, int) and abs(number) > LARGEST:
                raise ValueError(f"{number} {TOO_LARGE}")
        return value
