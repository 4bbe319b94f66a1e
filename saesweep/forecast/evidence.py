"""What finished trials of an experiment have shown: the features on which a metric's change until the end depends, and sums over trials.

Measured on the bench of curves: at 10% of a run the change of log(1 - explained variance) differs between trials by 0.3 to
1.0; given the settings and what has been measured so far, by 0.07 to 0.15. A denser SAE has more of its way before it, a
lower learning rate is behind, a penalised SAE that is still dense loses more; what the final decay of the learning rate gains grows
faster than the learning rate itself, hence the products.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saesweep.forecast.course import Course

Features = tuple[float, ...]
"""The constant 1 first."""


def names_of(family: str, metric: str) -> tuple[str, ...]:
    """Return what `features_of` holds, in its order, for trials of a family (see `Course.family`)."""
    if family == "steered":
        own = ("1", "lr", "target", "miss") if metric == "l0" else ("1", "lr", "target", "value", "miss")
    elif family == "penalty" and metric != "l0":
        own = ("1", "lr", "setting", "value", "l0")
    else:
        own = ("1", "lr", "setting", "value")
    return (*own, f"lr {own[2]}", "lr lr")


def features_of(course: Course, metric: str, scaled: float, log_l0: float) -> Features:
    """Return the features of a trial at a rung.

    Args:
        course: The trial's course.
        metric: The metric whose change they explain.
        scaled: Its value at the rung, on the metric's scale.
        log_l0: Logarithm of the L0 there.
    """
    target = 0.0 if course.target_l0 is None else math.log(course.target_l0)
    found = {
        "1": 1.0,
        "lr": course.log_lr,
        "setting": course.log_setting,
        "target": target,
        "value": scaled,
        "l0": log_l0,
        "miss": log_l0 - target,
    }
    names = names_of(course.family, metric)
    return tuple(math.prod(found[part] for part in name.split()) for name in names)


def centring(centre: Features, names: Sequence[str]) -> NDArray[np.float64]:
    """Return the matrix that takes features to the same ones counted from a centre, products of them too.

    Args:
        centre: The features there, such as their means.
        names: What they are, as `names_of` returns them.
    """
    place = {name: index for index, name in enumerate(names)}
    matrix = np.eye(len(names))
    for name, row in place.items():
        parts = [place[part] for part in name.split()]
        if len(parts) == 2:  # (x - a)(y - b) = xy - b x - a y + ab
            (x, y), (a, b) = parts, (centre[parts[0]], centre[parts[1]])
            matrix[row, x] -= b
            matrix[row, y] -= a
            matrix[row, 0] += a * b
        elif name != "1":
            matrix[row, 0] = -centre[row]
    return matrix


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
