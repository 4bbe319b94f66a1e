"""What the searched parameters do: how much each mattered, and what each choice does to a metric at the same L0.

Importances are Optuna's PED-ANOVA, among trials that all have the parameter. Parameters that every trial has are weighed over
all trials. Those that only some architectures have are weighed within each architecture, beside the common ones: over all
trials, a parameter's absence would be taken for a value of it.

As for choices: trials differ in L0, and most metrics follow it. So the metric (its logarithm, where it is one that spans
decades) is regressed on log L0 and on which value of the choice a trial has,

    y = a + b log L0 + effect of the value + residual,

by least squares over the finished trials, effects summing to zero. An effect is what the value changes at equal L0, with the
other parameters as they happened to be. Its standard error is that of the regression.

Values are compared only where their trials share a range of L0: where the ranges of two do not overlap, a difference "at
equal L0" would be an extrapolation of the straight line, whose error no regression knows.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from saesweep.specs import LOG_METRICS

MIN_TRIALS = 8
"""Finished trials below which an importance is left out: the better tenth of fewer is a single one, and chance."""


@dataclass(frozen=True, kw_only=True)
class Importance:
    """The importances within one group of trials, for one goal."""

    group: str
    """`all trials`, or an architecture."""
    goal: str
    """Such as `minimize delta_ce`."""
    n_trials: int
    """Finished trials of the group."""
    shares: Mapping[str, float]
    """Share by dotted path, the largest first; they sum to 1. Empty where the group is too small or all its values are one."""


def importances(study: optuna.Study, goals: Sequence[str], architectures: Mapping[int, str]) -> list[Importance]:
    """Return the importances over all trials, then within each architecture that has parameters of its own.

    Args:
        study: Optuna's own view of a study.
        goals: Its goals as text, in the order of the values.
        architectures: Architecture by trial number; trials that are not among them are left out.
    """
    done = [
        trial
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if trial.number in architectures
    ]
    common = _shared(done)
    groups: list[tuple[str, list[FrozenTrial], list[str]]] = [("all trials", done, common)] if common else []
    for architecture in dict.fromkeys(architectures[trial.number] for trial in done):
        own = [trial for trial in done if architectures[trial.number] == architecture]
        names = _shared(own)
        if set(names) - set(common):
            groups.append((architecture, own, names))
    return [
        Importance(
            group=group,
            goal=goal,
            n_trials=len(trials),
            shares=_shares(study, trials, names, index, goal) if len(trials) >= MIN_TRIALS else {},
        )
        for group, trials, names in groups
        for index, goal in enumerate(goals)
    ]


def _shared(trials: Sequence[FrozenTrial]) -> list[str]:
    """Return the parameters that every trial has, with more than one value among them."""
    names = trials[0].params if trials else {}
    return [
        name
        for name in names
        if all(name in trial.params for trial in trials) and len({repr(trial.params[name]) for trial in trials}) > 1
    ]


def _shares(
    study: optuna.Study, trials: Sequence[FrozenTrial], names: Sequence[str], index: int, goal: str
) -> dict[str, float]:
    sign = 1.0 if goal.startswith("minimize") else -1.0  # PED-ANOVA speaks of what makes a value low
    values = [sign * trial.values[index] for trial in trials]
    if len(set(values)) < 2 or not names:
        return {}
    alone = optuna.create_study(directions=study.directions)
    alone.add_trials(trials)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of experimental and few-trial notices
        found = optuna.importance.get_param_importances(
            alone, params=list(names), target=lambda trial: sign * trial.values[index]
        )
    # Ranges by condition are called `path|condition`; within a group only one of them occurs.
    return {name.partition("|")[0]: share for name, share in sorted(found.items(), key=lambda item: -item[1])}


_MIN_FREE = 3
"""Trials needed beyond the fitted coefficients."""
_NEAR = math.log(1.1)
"""Ranges of L0 that are this near each other count as one: a k of 16 and an L0 of 16.3 can be compared."""


@dataclass(frozen=True, kw_only=True)
class Effect:
    """One value of a choice."""

    value: str
    n_trials: int
    l0: tuple[float, float]
    """Smallest and largest L0 of its trials: outside, the regression extrapolates."""
    effect: float
    """Change of the metric at equal L0 against the mean of the values: a ratio less 1 where `is_ratio`."""
    stderr: float


@dataclass(frozen=True, kw_only=True)
class Marginal:
    """The effects of one choice on one metric."""

    path: str
    metric: str
    is_ratio: bool
    """Effects are relative (of a metric taken in logarithm)."""
    effects: tuple[Effect, ...]
    """The values, in the order of their first trial; empty where trials are too few."""
    n_trials: int
    apart: tuple[tuple[str, tuple[float, float]], ...] = ()
    """Values whose range of L0 overlaps that of no other value, with that range: nothing compares with them."""


Point = tuple[str, float, float]
"""A finished trial: the value of its choice, log L0, the metric."""


def marginals(
    path: str, metric: str, params: Sequence[Mapping[str, Any]], metrics: Sequence[Mapping[str, float]]
) -> list[Marginal]:
    """Return the effects of a choice on a metric at equal L0, one result for each set of values that share a range of L0.

    Values that share none with any other are named in the `apart` of the first result.

    Args:
        path: Dotted path of the choice.
        metric: Name of the metric.
        params: Parameters of each finished trial.
        metrics: Their metrics, in the same order.
    """
    rows = [
        (_text(own[path]), math.log(found["l0"]), found[metric])
        for own, found in zip(params, metrics, strict=True)
        if path in own and found.get("l0", 0.0) > 0 and math.isfinite(found.get(metric, math.nan))
    ]
    ranges = {
        value: (min(own), max(own))
        for value in dict.fromkeys(v for v, _, _ in rows)
        for own in [[l0 for v, l0, _ in rows if v == value]]
    }
    sets = _overlapping(ranges)
    alone = [own[0] for own in sets if len(own) == 1] if len(ranges) > 1 else []
    apart = tuple((value, (math.exp(ranges[value][0]), math.exp(ranges[value][1]))) for value in alone)
    compared = [[row for row in rows if row[0] in own] for own in sets if len(own) > 1]
    if not compared:  # say of how many trials nothing was made
        return [Marginal(path=path, metric=metric, is_ratio=False, effects=(), n_trials=len(rows), apart=apart)]
    found = [_fitted(path, metric, own) for own in compared]
    return [replace(found[0], apart=apart), *found[1:]]


def _overlapping(ranges: Mapping[str, tuple[float, float]]) -> list[list[str]]:
    """Return the sets of values whose ranges form one connected stretch, each in the order of `ranges`."""
    sets: list[list[str]] = []
    reached = -math.inf
    for value in sorted(ranges, key=lambda v: ranges[v]):
        if sets and ranges[value][0] <= reached + _NEAR:
            sets[-1].append(value)
        else:
            sets.append([value])
        reached = max(reached, ranges[value][1])
    order = list(ranges)
    return sorted((sorted(own, key=order.index) for own in sets), key=lambda own: order.index(own[0]))


def _fitted(path: str, metric: str, rows: Sequence[Point]) -> Marginal:
    """Return the regression over trials whose ranges of L0 overlap."""
    values = list(dict.fromkeys(value for value, _, _ in rows))
    is_ratio = metric in LOG_METRICS and all(y > 0 for _, _, y in rows)
    empty = Marginal(path=path, metric=metric, is_ratio=is_ratio, effects=(), n_trials=len(rows))
    if len(values) < 2 or len(rows) < len(values) + 1 + _MIN_FREE:
        return empty
    y = np.array([math.log(v) if is_ratio else v for _, _, v in rows])
    log_l0 = np.array([l0 for _, l0, _ in rows])
    # One column per value and none for the constant; centred, so that the slope does not mix with them.
    design = np.column_stack([*([float(v == value) for v, _, _ in rows] for value in values), log_l0 - log_l0.mean()])
    if np.linalg.matrix_rank(design) < design.shape[1]:
        return empty
    beta, *_ = np.linalg.lstsq(design, y, rcond=None)
    residual = y - design @ beta
    covariance = float(residual @ residual) / (len(rows) - design.shape[1]) * np.linalg.inv(design.T @ design)
    k = len(values)
    contrast = np.hstack([np.eye(k) - 1.0 / k, np.zeros((k, 1))])
    effects, errors = contrast @ beta, np.sqrt(np.diag(contrast @ covariance @ contrast.T))
    found = []
    for value, effect, error in zip(values, effects, errors, strict=True):
        own = [math.exp(l0) for v, l0, _ in rows if v == value]
        ratio = math.exp(effect)
        found.append(
            Effect(
                value=value,
                n_trials=len(own),
                l0=(min(own), max(own)),
                effect=ratio - 1 if is_ratio else float(effect),
                stderr=ratio * float(error) if is_ratio else float(error),
            )
        )
    return Marginal(path=path, metric=metric, is_ratio=is_ratio, effects=tuple(found), n_trials=len(rows))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)
