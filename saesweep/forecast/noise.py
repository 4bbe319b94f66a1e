"""How large the errors of forecasts are in this experiment: larger or smaller by one factor than the recorded sources say.

What the settings and the course so far do not explain differs between sources more than between architectures: on the bench
of curves the errors of synthetic activations are two to three times those of language models, for all kinds alike. So
one factor per metric is learned from the finished trials of every kind. Until it is known, forecasts have the heavy
tails of Student's t.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from saesweep.forecast.course import Course
from saesweep.forecast.evidence import Array, Evidence, Moments, centring, names_of
from saesweep.forecast.table import Prior, Table

_STANDARD = NormalDist()
FREEDOM = 4.0
"""Degrees of freedom of an error before the experiment has shown any: how much the variances of the recorded sources differ."""


@dataclass(frozen=True)
class Noise:
    """What is known of the errors of one metric."""

    scale: float = 1.0
    """Variance of the errors, over that of the table."""
    freedom: float = FREEDOM
    """Degrees of freedom: `FREEDOM`, and one for every finished trial."""


def noises_of(table: Table, evidence: Evidence, courses: Mapping[str, Course]) -> dict[tuple[str, str], Noise]:
    """Return the noise by (scope, metric), where finished trials have shown any.

    Args:
        table: The prior.
        evidence: Of the finished trials.
        courses: A course of each kind of trial, by the first part of its keys.
    """
    squares: dict[tuple[str, str], dict[str, list[tuple[int, float]]]] = {}
    for (kind, metric, rung), moments in evidence.items():
        course = courses[kind]
        entry = table.entry(course.kind, course.family, metric)
        if entry is None or course.leads[rung] == 0 or (metric == "l0" and course.l0 is not None):
            continue
        prior = entry.at(course.leads[rung])
        found = unexplained(prior, moments, names_of(course.family, metric))
        squares.setdefault((course.scope, metric), {}).setdefault(kind, []).append((moments.n, found))
    noises = {}
    for key, by_kind in squares.items():
        # The errors of one trial at several rungs are nearly the same: they count once.
        n = sum(max(n for n, _ in found) for found in by_kind.values())
        total = sum(sum(square for _, square in found) / len(found) for found in by_kind.values())
        noises[key] = Noise((FREEDOM + total) / (FREEDOM + n), FREEDOM + n)
    return noises


@lru_cache(maxsize=4096)
def unexplained(prior: Prior, moments: Moments, names: tuple[str, ...]) -> float:
    """Return the expected sum of squared errors of finished trials, in variances of the table.

    A trial that finishes changes the sums of its own kind alone: those of the others are remembered.
    """
    noise = max(prior.error_sd, 1e-6) ** 2
    to_centre = centring(moments.mean, names)
    products, with_change = to_centre @ np.asarray(moments.products) @ to_centre.T, to_centre @ moments.with_change
    weights, covariance = prior.posterior(noise, products, with_change)
    squares = moments.squared_change - 2 * weights @ with_change + weights @ products @ weights
    return float(max(0.0, squares) + np.trace(covariance @ products)) / noise


def cdf(t: float, freedom: float) -> float:
    """Return the distribution function of Student's t, within 0.002 (Wallace's approximation); of the normal one for infinity."""
    if math.isinf(freedom):
        return _STANDARD.cdf(t)
    normal = (8 * freedom + 1) / (8 * freedom + 3) * math.sqrt(freedom * math.log1p(t * t / freedom))
    return _STANDARD.cdf(math.copysign(normal, t))


def approx_cdf(t: Array, freedom: float) -> Array:
    """Return `cdf` of many numbers, but for rounding."""
    from scipy.special import ndtr  # imported where it is first needed: it takes a tenth of a second

    if math.isinf(freedom):
        return np.asarray(ndtr(t), dtype=np.float64)
    normal = (8 * freedom + 1) / (8 * freedom + 3) * np.sqrt(freedom * np.log1p(t * t / freedom))
    return np.asarray(ndtr(np.copysign(normal, t)), dtype=np.float64)


def quantile(probability: float, freedom: float) -> float:
    """Return what `cdf` takes to a probability of 1/2 or more."""
    normal = _STANDARD.inv_cdf(probability)
    if math.isinf(freedom):
        return normal
    scaled = normal * (8 * freedom + 3) / (8 * freedom + 1)
    return math.sqrt(freedom * math.expm1(scaled * scaled / freedom))
