"""What the search optimises, as the scheduler needs it: goals and limits with one convention of sign."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from saesweep.forecast import orientation, to_scale
from saesweep.specs import ObjectiveSpec

MAX_MISS = 0.1
"""A trial speaks of its target L0 only where it ends this near; a relative distance."""


@dataclass(frozen=True)
class GoalAim:
    """One goal."""

    metric: str
    maximize: bool

    @property
    def sign(self) -> int:
        """1 where lower is better on the scale of the metric, -1 where higher is."""
        return orientation(self.metric) * (-1 if self.maximize else 1)


@dataclass(frozen=True)
class Limit:
    """Bounds of a metric, both included."""

    metric: str
    min: float | None = None
    max: float | None = None

    def keeps(self, value: float) -> bool:
        """Return whether a value lies within the bounds."""
        return (self.min is None or value >= self.min) and (self.max is None or value <= self.max)

    def text(self) -> str:
        """Return the limit as text, such as `l0 <= 64`."""
        parts = [f"{self.metric} >= {self.min:.4g}"] if self.min is not None else []
        return " and ".join(parts + ([f"{self.metric} <= {self.max:.4g}"] if self.max is not None else []))

    def scaled(self) -> tuple[float, float]:
        """Return the lower and the upper bound on the scale of the metric, infinite where there is none."""
        ends = [
            None if bound is None else to_scale(self.metric, bound)
            for bound in (self.min, self.max)[:: orientation(self.metric)]
        ]
        return (-math.inf if ends[0] is None else ends[0], math.inf if ends[1] is None else ends[1])


@dataclass(frozen=True)
class Aim:
    """The goals of a search and the limits that a finished trial must keep."""

    goals: tuple[GoalAim, ...]
    limits: tuple[Limit, ...] = ()
    matched: bool = False
    """Whether each trial aims at an L0 of its own, near which it must end."""

    @classmethod
    def of(cls, objective: ObjectiveSpec) -> Aim:
        """Return the aim of an objective."""
        return cls(
            goals=tuple(GoalAim(goal.metric, goal.direction == "maximize") for goal in objective.goals),
            limits=tuple(Limit(name, bound.min, bound.max) for name, bound in objective.subject_to.items()),
            matched=objective.matched is not None,
        )

    @cached_property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that a trial reports, in this order; L0 among them, on which forecasts of others depend."""
        names = [*(goal.metric for goal in self.goals), *(limit.metric for limit in self.limits), "l0"]
        return tuple(dict.fromkeys(names))

    def near(self, target_l0: float | None) -> tuple[Limit, ...]:
        """Return within which bounds a trial is near the L0 that it aims at; nothing where it aims at none."""
        if target_l0 is None or not self.matched:
            return ()
        return (Limit("l0", target_l0 * (1 - MAX_MISS), target_l0 * (1 + MAX_MISS)),)

    def costs(self, values: Sequence[float], target_l0: float | None) -> tuple[float, ...]:
        """Return what a report counts, all to be small: the goals, each limited metric, the distance to a target L0.

        One report dominates another when it is nowhere larger and somewhere smaller.
        """
        named = dict(zip(self.metrics, values, strict=True))
        goals = [-named[goal.metric] if goal.maximize else named[goal.metric] for goal in self.goals]
        limited = [
            sign * named[limit.metric]
            for limit in self.limits
            for sign, bound in ((1, limit.max), (-1, limit.min))
            if bound is not None
        ]
        missed = [abs(to_scale("l0", named["l0"]) - to_scale("l0", target_l0))] if self.matched and target_l0 else []
        return (*goals, *limited, *missed)

    def to_json(self) -> dict[str, Any]:
        """Return the aim as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Aim:
        """Return the aim that `to_json` described."""
        return cls(
            goals=tuple(GoalAim(**goal) for goal in data["goals"]),
            limits=tuple(Limit(**limit) for limit in data["limits"]),
            matched=data["matched"],
        )
