"""What each choice does to a metric at the same L0.

Trials differ in L0, and most metrics follow it. So the metric (its logarithm, where it is one that spans decades) is
regressed on log L0 and on which value of the choice a trial has,

    y = a + b log L0 + effect of the value + residual,

by least squares over the finished trials, effects summing to zero. An effect is what the value changes at equal L0, with the
other parameters as they happened to be. Its standard error is that of the regression.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

LOG_METRICS = ("mse", "l1", "delta_ce", "kl_div")
_LEAST_FREE = 3
"""Trials needed beyond the fitted coefficients."""


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


def marginal(
    path: str, metric: str, params: Sequence[Mapping[str, Any]], metrics: Sequence[Mapping[str, float]]
) -> Marginal:
    """Return the effects of a choice on a metric at equal L0.

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
    values = list(dict.fromkeys(value for value, _, _ in rows))
    is_ratio = metric in LOG_METRICS and all(y > 0 for _, _, y in rows)
    empty = Marginal(path=path, metric=metric, is_ratio=is_ratio, effects=(), n_trials=len(rows))
    if len(values) < 2 or len(rows) < len(values) + 1 + _LEAST_FREE:
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
