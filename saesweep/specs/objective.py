"""What the search optimises: one metric with constraints, or a Pareto front of several."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from saesweep.specs.metrics import Direction
from saesweep.specs.model import Spec


def _values(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class Bound(Spec):
    """Limits of a metric, both included."""

    min: float | None = None
    """Smallest feasible value."""
    max: float | None = None
    """Largest feasible value."""


class Goal(Spec):
    """One metric and its direction."""

    minimize: str | None = None
    """Name of the metric to make small."""
    maximize: str | None = None
    """Name of the metric to make large."""

    @property
    def metric(self) -> str:
        """Name of the metric."""
        return self.minimize or self.maximize or ""

    @property
    def direction(self) -> Direction:
        """The direction asked for."""
        return "minimize" if self.minimize is not None else "maximize"


class ObjectiveSpec(Spec):
    """`{minimize: m}` or `{maximize: m}` with `subject_to`, or `{pareto: [...]}`."""

    minimize: str | None = None
    """Name of the metric to make small."""
    maximize: str | None = None
    """Name of the metric to make large."""
    pareto: Annotated[tuple[Goal, ...], BeforeValidator(_values)] = ()
    """Two or more goals; the result is the front of trials that no other trial beats in all of them."""
    subject_to: dict[str, Bound] = {}
    """Limits that a finished trial must keep to be feasible. Rungs do not apply them: penalty-based architectures meet their L0 late."""
    matched: dict[str, Annotated[tuple[float, ...], BeforeValidator(_values)]] | None = Field(None)
    """Compare architectures at these values of a metric, such as {l0: [32, 64]}. Not implemented in this version."""

    @property
    def goals(self) -> tuple[Goal, ...]:
        """The goals, one or several."""
        return self.pareto or (Goal(minimize=self.minimize, maximize=self.maximize),)

    @property
    def is_pareto(self) -> bool:
        """Several goals."""
        return bool(self.pareto)

    def metric_names(self) -> tuple[str, ...]:
        """Return every metric the objective reads: goals, then constraints."""
        return (*dict.fromkeys([*(g.metric for g in self.goals), *self.subject_to]),)
