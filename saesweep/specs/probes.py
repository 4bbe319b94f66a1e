"""Labelled texts for probes."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from saesweep.specs.datasets import DatasetSpec
from saesweep.specs.model import Spec
from saesweep.specs.units import TokenCount

DEFAULT_TEST_FRACTION = 0.25
"""Of a task whose dataset has no split of its own to test on."""


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class ProbeTaskSpec(DatasetSpec):
    """A labelled dataset: texts, each of one of 2 to 20 classes."""

    name: str = Field(min_length=1, max_length=40)
    """What its figures are called, such as `probe_accuracy_<name>_k5`: letters, digits, `_` and `-`."""
    column_name: str | None = None
    """Column with the text; found by its usual names when left out."""
    label_column: str = "label"
    """Column with the class: text, a whole number or true/false."""
    test_split: str | None = None
    """Split of the dataset that probes are tested on. When left out: a part of `split`."""
    test_fraction: float | None = Field(None, gt=0, lt=1)
    """Share of `split` that probes are tested on, drawn by `base.seed`; 0.25 when left out. Only without `test_split`."""
    max_train: TokenCount = Field(1024, ge=20)
    """At most this many texts are probed on; as many of each class."""
    max_test: TokenCount = Field(1024, ge=20)
    """At most this many texts are tested on; as many of each class."""

    @field_validator("name")
    @classmethod
    def _is_part_of_a_name(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", value):
            raise ValueError(f"{value!r} becomes part of a metric's name; use letters, digits, '_' and '-' only")
        return value


class ProbesSpec(Spec):
    """k-sparse probing: what can be read of a text's class from k latents (docs/metrics.md)."""

    tasks: Annotated[tuple[ProbeTaskSpec, ...], BeforeValidator(_tuple)]
    """The labelled datasets."""
    ks: Annotated[tuple[int, ...], BeforeValidator(_tuple)] = (1, 5)
    """Numbers of latents that probes are trained on, ascending."""
    k: int | None = None
    """The one of `ks` that `probe_accuracy` and `probe_auc` are of; the largest when left out."""
    pooling: Literal["last", "mean"] = "last"
    """Latents of a text: those at its `last` token, as in sae-probes, or their `mean` over its tokens, as in SAEBench."""

    @property
    def main_k(self) -> int:
        """The number of latents that `probe_accuracy` is of."""
        return self.ks[-1] if self.k is None else self.k

    @field_validator("tasks")
    @classmethod
    def _check_unique_names(cls, value: tuple[ProbeTaskSpec, ...]) -> tuple[ProbeTaskSpec, ...]:
        if not value:
            raise ValueError("is empty; name at least one labelled dataset, or leave `probes` out")
        names = [task.name for task in value]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two tasks are called {twice!r}; give each a name of its own")
        return value

    @field_validator("ks")
    @classmethod
    def _are_ascending(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or value[0] < 1 or list(value) != sorted(set(value)):
            raise ValueError(
                f"{list(value)} must be numbers of latents from 1 on, ascending, each once, such as [1, 5]"
            )
        return value
