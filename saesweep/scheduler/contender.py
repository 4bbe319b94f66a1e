"""Trials as rivals see them: one by itself, and many that are alike as columns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saesweep.forecast import Forecast, Forecasts, probability_better
from saesweep.scheduler.aim import Aim

Array = NDArray[np.float64]
Numbers = NDArray[np.signedinteger[Any]]
SLACK = 0.1
"""A trial on a front may be this much denser, in logarithm, than one that it makes superfluous."""
EVERYWHERE = (-math.inf, math.inf)
"""Bounds that nothing is beyond."""


@dataclass(frozen=True)
class Contender:
    """A trial as rivals see it."""

    number: int
    forecasts: Mapping[str, Forecast]
    """By metric."""
    feasible: float
    """Probability that it ends within every limit."""
    excess: float
    """How far the middle of the forecasts is beyond the limits, on the scales of their metrics, summed."""
    near: float
    """Probability that it ends near its target L0; 1 without one. It makes a rival, but is not held against the trial itself:
    its coefficient is still being steered there."""
    is_finished: bool

    @property
    def expected(self) -> dict[str, float]:
        """The middle of each forecast that there is, as a value of its metric."""
        return {metric: known.value for metric, known in self.forecasts.items() if known.is_known}

    def beats(self, other: Contender, aim: Aim) -> float:
        """Return the probability that it ends within the limits and better than another: in the one goal, or in all."""
        return (
            self.feasible
            * self.near
            * math.prod(
                probability_better(
                    self.forecasts[goal.metric],
                    other.forecasts[goal.metric],
                    goal.sign,
                    slack=slack_of(goal.metric, aim),
                )
                for goal in aim.goals
            )
        )


def slack_of(metric: str, aim: Aim) -> float:
    """Return how much worse still counts as better: of several goals, L0 is equal within `SLACK`.

    A front needs no two trials of nearly the same L0.
    """
    return SLACK if len(aim.goals) > 1 and metric == "l0" else 0.0


@dataclass(frozen=True)
class Pack:
    """Contenders that are alike, a row each: live trials of one kind at one rung, or the finished ones of a group."""

    aim: Aim
    numbers: Numbers
    forecasts: Mapping[str, Forecasts]
    """By metric."""
    near: Array
    """[n, 2] Bounds of the L0 near the target, on the scale."""
    is_finished: bool = False

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, row: int) -> Contender:
        forecasts = {metric: own[row] for metric, own in self.forecasts.items()}
        limits = [(limit.metric, *limit.scaled()) for limit in self.aim.limits]
        near = [("l0", *bounds) for bounds in [tuple(self.near[row].tolist())] if bounds != EVERYWHERE]
        return Contender(
            int(self.numbers[row]),
            forecasts,
            *_feasible(forecasts, limits),
            _feasible(forecasts, near)[0],
            self.is_finished,
        )

    def row_of(self, number: int) -> int | None:
        """Return the row of a live trial; None where it is not here."""
        row = int(np.searchsorted(self.numbers, number))
        return row if row < len(self) and self.numbers[row] == number else None

    def taken(self, rows: Numbers) -> Pack:
        """Return some of the rows."""
        forecasts = {metric: own.taken(rows) for metric, own in self.forecasts.items()}
        return Pack(self.aim, self.numbers[rows], forecasts, self.near[rows], self.is_finished)

    @cached_property
    def approx_probability_feasible(self) -> Array:
        """About the probability of each to end within every limit."""
        found = np.ones(len(self))
        for limit in self.aim.limits:
            found = found * self._approx_probability_within(limit.metric, *limit.scaled())
        return found

    @cached_property
    def _approx_probability_counts(self) -> Array:
        """About the probability of each to be a rival at all."""
        if not self.aim.matched:
            return self.approx_probability_feasible
        return self.approx_probability_feasible * self._approx_probability_within(
            "l0", self.near[:, 0], self.near[:, 1]
        )

    def _approx_probability_within(self, metric: str, low: float | Array, high: float | Array) -> Array:
        known = self.forecasts[metric]
        with np.errstate(invalid="ignore"):  # no bound, and nothing known: both are seen to below
            inside = known.approx_probability_below(high) - (1.0 - known.approx_probability_above(low))
        free = np.isneginf(low) & np.isposinf(high)  # also where nothing is known
        return np.where(free, 1.0, np.where(np.isfinite(known.own_variances), np.maximum(0.0, inside), 0.5))

    def approx_probability_beats(self, others: Sequence[Contender]) -> Array:
        """Return [others, n] about the probability of each to beat other trials (see `Contender.beats`)."""
        return self._approx_probability_counts * self._approx_probability_better(others, 1)

    def approx_probability_unbeaten(self, rival: Contender) -> Array:
        """Return about the probability of each to end within the limits and not to be beaten by a rival."""
        beaten = rival.feasible * rival.near * self._approx_probability_better([rival], -1)[0]
        found: Array = self.approx_probability_feasible * (1.0 - beaten)
        return found

    def _approx_probability_better(self, others: Sequence[Contender], sign: int) -> Array:
        found = np.ones((len(others), len(self)))
        for goal in self.aim.goals:
            rival_forecasts, slack = [other.forecasts[goal.metric] for other in others], slack_of(goal.metric, self.aim)
            found *= self.forecasts[goal.metric].approx_probability_better(rival_forecasts, sign * goal.sign, slack)
        return found


def _feasible(forecasts: Mapping[str, Forecast], bounds: Sequence[tuple[str, float, float]]) -> tuple[float, float]:
    """Return the probability that all bounds are kept, and how far the middle of the forecasts is beyond them."""
    product, excess = 1.0, 0.0
    for metric, low, high in bounds:
        known = forecasts[metric]
        outside = 0.0 if math.isinf(low) else 1.0 - known.probability_above(low)
        inside = (1.0 if math.isinf(high) else known.probability_below(high)) - outside
        product *= max(0.0, inside) if known.is_known else 0.5
        excess += max(0.0, known.mean - high, low - known.mean)
    return product, excess
