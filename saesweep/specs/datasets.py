"""One dataset: where it is, and which part and column of it are meant."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from saesweep.specs.model import Spec


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class DatasetSpec(Spec):
    """A dataset; the fields mean what they mean under `base`."""

    dataset_path: str = Field(min_length=1)
    """Hub id, local file, folder or glob, or `builtin:python-docs`."""
    dataset_name: str | None = None
    """Configuration of the dataset, such as `sample-10BT`."""
    split: str = "train"
    """Split of the dataset, such as `validation`."""
    data_files: Annotated[tuple[str, ...] | None, BeforeValidator(_tuple)] = None
    """Only these files (or globs) of the dataset."""
    data_dir: str | None = None
    """Only this folder of the dataset."""
    column_name: str | None = None
    """Column with the text, the conversations or the token ids; found by its usual names when left out."""


class WeightedDatasetSpec(DatasetSpec):
    """A dataset of a mixture."""

    weight: float = Field(gt=0, allow_inf_nan=False)
    """Its share of the tokens that are trained on, relative to the sum of all weights."""
