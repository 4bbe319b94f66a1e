"""With which probability a trial ends among what the objective keeps.

Every trial that has been measured has a forecast of each goal and each limited metric at its end; a finished one has the
values themselves. A trial is kept by the objective when it is feasible and no rival is better: has a better value (one
goal), dominates it (several), or has a better value at the same target L0 (matched).

The probability is that of being within the limits, times that of standing up to the strongest rival. The others together
can only lower it: but their errors have causes in common, which no product of probabilities knows, and measured on the
bench of curves that product prunes winners.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from saesweep.forecast import (
    Ahead,
    Forecast,
    Report,
    Table,
    forecast_all,
    noises_of,
    orientation,
    probability_better,
    to_scale,
)
from saesweep.scheduler.aim import Aim, Limit
from saesweep.scheduler.dominance import fronts
from saesweep.scheduler.state import State, TrialState

SLACK = 0.1
"""A trial on a front may be this much denser, in logarithm, than one that it makes superfluous."""


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


@dataclass(frozen=True)
class Outlook:
    """What is to be expected of a live trial."""

    contender: Contender
    probability: float
    """Of ending among what the objective keeps."""
    rival: int | None
    """Number of the trial that is most probably better; None without one."""


def contenders(state: State, table: Table) -> dict[int, Contender]:
    """Return every live trial that has been measured, and the finished ones that are rivals, by number.

    A live one is forecast from its latest report. Those that are furthest ahead come first, since what they have done since
    an earlier rung helps to forecast the trials there.
    """
    aim, end = state.policy.aim, state.policy.end_rung
    found: dict[int, dict[str, Forecast]] = {}
    for trial in _finished_rivals(state):
        values = zip(aim.metrics, trial.reports[end], strict=True)
        found[trial.number] = {metric: Forecast(metric, to_scale(metric, value)) for metric, value in values}
    noises = noises_of(
        table, state.evidence, {trial.course.scoped_kind: trial.course for trial in state.trials.values()}
    )
    by_rung: dict[int, list[TrialState]] = {}
    for trial in state.live_trials:
        if trial.reports:
            by_rung.setdefault(max(trial.reports), []).append(trial)
    done: list[TrialState] = []
    for rung in sorted(by_rung, reverse=True):
        by_kind: dict[tuple[str, str], list[TrialState]] = {}
        for trial in by_rung[rung]:
            by_kind.setdefault((trial.course.scope, trial.course.kind), []).append(trial)
        for kind, trials in by_kind.items():
            further = [t for t in done if (t.course.scope, t.course.kind) == kind and rung in t.reports]
            for metric in aim.metrics:
                reports = [report_of(trial, aim, metric, rung) for trial in trials]
                ahead = [Ahead(report_of(t, aim, metric, rung), found[t.number][metric]) for t in further]
                forecasts = forecast_all(
                    table, reports, state.evidence, ahead, noises.get((trials[0].course.scope, metric))
                )
                for trial, known in zip(trials, forecasts, strict=True):
                    found.setdefault(trial.number, {})[metric] = known
        done += by_rung[rung]
    return {
        number: Contender(
            number,
            forecasts,
            *_feasible(forecasts, aim.limits),
            _feasible(forecasts, aim.near(state.trials[number].course.target_l0))[0],
            state.trials[number].status == "complete",
        )
        for number, forecasts in found.items()
    }


def _finished_rivals(state: State) -> list[TrialState]:
    """Return the feasible finished trials that no other one of their group dominates: whoever beats a trial, one of them does."""
    aim, end = state.policy.aim, state.policy.end_rung
    by_group: dict[str, dict[int, tuple[float, ...]]] = {}
    for trial in state.trials.values():
        if is_feasible(trial, state):
            values = dict(zip(aim.metrics, trial.reports[end], strict=True))
            costs = tuple(goal.sign * to_scale(goal.metric, values[goal.metric]) for goal in aim.goals)
            by_group.setdefault(trial.group, {})[trial.number] = costs
    return [state.trials[number] for pool in by_group.values() for number in fronts(pool)[0]]


def is_feasible(trial: TrialState, state: State) -> bool:
    """Return whether a trial has finished within the limits and, with matched L0, near its target; a dead SAE never has."""
    aim, end = state.policy.aim, state.policy.end_rung
    if trial.status != "complete" or end not in trial.reports:
        return False
    values = dict(zip(aim.metrics, trial.reports[end], strict=True))
    bounds = (*aim.limits, *aim.near(trial.course.target_l0))
    return values["l0"] > 0 and all(limit.keeps(values[limit.metric]) for limit in bounds)


def report_of(trial: TrialState, aim: Aim, metric: str, rung: int) -> Report:
    """Return what was measured of one metric at a rung."""
    values = dict(zip(aim.metrics, trial.reports[rung], strict=True))
    return Report(trial.course, metric, rung, values[metric], values["l0"])


def _feasible(forecasts: Mapping[str, Forecast], limits: Sequence[Limit]) -> tuple[float, float]:
    """Return the probability that every limit is kept, and how far the middle of the forecasts is beyond them."""
    product, excess = 1.0, 0.0
    for limit in limits:
        low, high = limit.scaled()
        if orientation(limit.metric) < 0:
            low, high = high, low
        known = forecasts[limit.metric]
        outside = 0.0 if low is None else 1.0 - known.probability_above(low)
        inside = (1.0 if high is None else known.probability_below(high)) - outside
        product *= max(0.0, inside) if known.is_known else 0.5
        excess += max(
            0.0, -math.inf if high is None else known.mean - high, -math.inf if low is None else low - known.mean
        )
    return product, excess


def outlook(own: Contender, rivals: Iterable[Contender], aim: Aim) -> Outlook:
    """Return what is to be expected of a trial among its rivals."""
    stands, strongest = 1.0, None
    for other in rivals:
        if other.number == own.number:
            continue
        against_this_one = 1.0 - other.feasible * other.near * _beaten(own, other, aim)
        if against_this_one < stands:
            stands, strongest = against_this_one, other.number
    return Outlook(own, own.feasible * stands, strongest)


def _beaten(own: Contender, other: Contender, aim: Aim) -> float:
    """Return the probability that the other one is better: in the one goal, or in all.

    Of several goals, L0 counts as equal within `SLACK`: a front needs no two trials of nearly the same L0.
    """
    slack = SLACK if len(aim.goals) > 1 else 0.0
    return math.prod(
        probability_better(
            other.forecasts[goal.metric],
            own.forecasts[goal.metric],
            goal.sign,
            slack=slack if goal.metric == "l0" else 0.0,
        )
        for goal in aim.goals
    )
