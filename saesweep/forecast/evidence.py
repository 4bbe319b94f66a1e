"""What finished trials of an experiment have shown, as sums that a new one is added to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saesweep.forecast.features import Features

Array = NDArray[np.float64]
Key = tuple[str, str, int]
"""Kind of trial, metric, rung."""


@dataclass(frozen=True)
class Moments:
    """Sums over trials: of products of their features, and of features with the change from the rung to the end."""

    products: tuple[tuple[float, ...], ...] = ()
    with_change: tuple[float, ...] = ()
    squared_change: float = 0.0

    @property
    def n(self) -> int:
        """Number of trials."""
        return round(self.products[0][0]) if self.products else 0

    @property
    def mean(self) -> Features:
        """Mean of the features."""
        return tuple(value / self.n for value in self.products[0])

    def plus(self, features: Features, change: float) -> Moments:
        """Return the sums with one more trial."""
        rows = self.products or ((0.0,) * len(features),) * len(features)
        with_change = self.with_change or (0.0,) * len(features)
        return Moments(
            tuple(
                tuple(p + a * b for p, b in zip(row, features, strict=True))
                for row, a in zip(rows, features, strict=True)
            ),
            tuple(p + a * change for p, a in zip(with_change, features, strict=True)),
            self.squared_change + change * change,
        )

    def to_json(self) -> list[Any]:
        """Return the sums as plain JSON values."""
        return [[list(row) for row in self.products], list(self.with_change), self.squared_change]

    @classmethod
    def from_json(cls, data: Sequence[Any]) -> Moments:
        """Return the sums that `to_json` described."""
        return cls(tuple(map(tuple, data[0])), tuple(data[1]), data[2])


Evidence = Mapping[Key, Moments]
