"""How a trial is forecast from what it reported at a rung.

A linear regression of the change from a rung to the end on a few features (`features.py`), separately for each kind of
trial, metric and rung. Its prior comes from recorded curves (`table.py`); the finished trials of the experiment, and those
that are further ahead, turn it into a posterior. What is uncertain about the weights is shared by all trials of a kind
at a rung, and cancels where two alike ones are compared.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from saesweep.forecast.columns import Column, Forecasts
from saesweep.forecast.course import Course
from saesweep.forecast.evidence import Array, Evidence, Features, Key, Moments, centring, features_of, names_of
from saesweep.forecast.forecast import to_scale
from saesweep.forecast.noise import Noise
from saesweep.forecast.table import Prior, Table

MIN_EVIDENCE = 4
"""Finished trials of a kind before a metric that the table does not know is forecast from them."""
_K_SD = 0.02
"""What the L0 of an SAE that is exported with a threshold differs from its k, in logarithm: it is calibrated on other tokens."""
_ALMOST = 0.999
"""A topk SAE whose L0 is this much of its k has k active latents on every token, and will have."""


@dataclass(frozen=True)
class Report:
    """What was measured of a trial at a rung."""

    course: Course
    metric: str
    rung: int
    value: float
    l0: float

    @property
    def scaled(self) -> float:
        """The value on the metric's scale."""
        return to_scale(self.metric, self.value)

    @property
    def key(self) -> Key:
        """The regression that it belongs to."""
        return self.course.scoped_kind, self.metric, self.rung

    @property
    def features(self) -> Features:
        """The features at the rung."""
        return features_of(self.course, self.metric, self.scaled, to_scale("l0", self.l0))


def column_of(reports: Sequence[Report]) -> Column:
    """Return reports of trials of one kind as a column."""
    if _is_known(reports[0].course, reports[0].metric):
        ends = np.array([_by_construction(report) for report in reports])
        return Column(np.zeros((len(reports), 0)), ends[:, 0], ends[:, 1])
    features = np.array([report.features for report in reports])
    return Column(features, np.array([report.scaled for report in reports]), np.zeros(len(reports)))


@dataclass(frozen=True)
class Ahead:
    """Trials that passed a rung and are now forecast from later ones: nearly evidence."""

    column: Column
    """What they reported at the rung."""
    means: Array
    """[n] Of the forecasts of their ends."""
    sds: Sequence[float]

    @classmethod
    def of(cls, column: Column, ends: Iterable[Forecasts]) -> Ahead:
        """Return trials ahead: their reports, and the forecasts of their ends in the same order."""
        found = list(ends)
        return cls(column, np.concatenate([one.means for one in found]), [sd for one in found for sd in one.sds])


def forecast_all(
    table: Table, reports: Sequence[Report], evidence: Evidence, ahead: Ahead | None = None, noise: Noise | None = None
) -> Forecasts:
    """Return the forecasts of trials by their reports, which are of one kind, metric and rung (see `forecast_column`)."""
    first = reports[0]
    return forecast_column(table, first.key, first.course, column_of(reports), evidence, ahead, noise)


def forecast_column(
    table: Table,
    key: Key,
    course: Course,
    column: Column,
    evidence: Evidence,
    ahead: Ahead | None = None,
    noise: Noise | None = None,
) -> Forecasts:
    """Return the forecasts of trials of one kind from one rung.

    Args:
        table: The prior.
        key: Their kind, the metric and the rung.
        course: That of the first one.
        column: What they reported there, at least one.
        evidence: Of the finished trials of the experiment.
        ahead: Live trials of the kind that have passed this rung.
        noise: How large errors are in this experiment; as in the table, and unsure, where nothing is known.
    """
    _, metric, rung = key
    if _is_known(course, metric):
        return Forecasts(metric, column.scaled, column.variances)
    moments = evidence.get(key, Moments())
    entry = table.entry(course.kind, course.family, metric)
    if entry is None:
        return _from_evidence_alone(metric, column, moments)
    prior = entry.at(course.leads[rung])
    features = column.features if ahead is None else np.concatenate([column.features, ahead.column.features])
    to_centre = centring(_centre(features, moments), names_of(course.family, metric))
    noise = noise or Noise()
    variance = max(prior.error_sd, 1e-6) ** 2 * noise.scale
    weights, covariance = _posterior(prior, moments, ahead, to_centre, variance)
    x = _times(to_centre, column.features)
    means = column.scaled + np.matmul(x[:, None, :], weights[:, None])[:, 0, 0]
    return Forecasts(metric, means, np.full(len(column), variance), key, x, covariance, noise.freedom)


def _times(matrix: Array, rows: Array) -> Array:
    """Return the product of a matrix with each row by itself, which is not bit for bit that with all of them together."""
    found: Array = np.matmul(matrix, rows[:, :, None])[:, :, 0]
    return found


def _posterior(
    prior: Prior, moments: Moments, ahead: Ahead | None, to_centre: Array, variance: float
) -> tuple[Array, Array]:
    """Return the mean and the covariance of the weights, given what finished trials and those further ahead have shown."""
    n = len(prior.means)
    products, with_change = np.zeros((n, n)), np.zeros(n)
    if moments.n:
        products = to_centre @ np.asarray(moments.products) @ to_centre.T
        with_change = to_centre @ np.asarray(moments.with_change)
    if ahead is not None:
        x = _times(to_centre, ahead.column.features)
        # An end that is itself a forecast counts for less.
        weights = np.array([variance / (variance + sd**2) for sd in ahead.sds])
        outer = weights[:, None, None] * (x[:, :, None] * x[:, None, :])
        change = weights[:, None] * x * (ahead.means - ahead.column.scaled)[:, None]
        # Sums over the first axis are taken in its order, one trial after the other.
        products = np.add.reduce(np.concatenate([products[None], outer]), axis=0)
        with_change = np.add.reduce(np.concatenate([with_change[None], change]), axis=0)
    return prior.posterior(variance, products, with_change)


def _centre(features: Array, moments: Moments) -> Features:
    """Return the mean of the features over all trials of the experiment that have come as far."""
    total, n = np.sum(features, axis=0), len(features)
    if moments.n:
        total, n = total + np.asarray(moments.products)[0], n + moments.n
    return tuple(float(value) for value in total / n)


def _is_known(course: Course, metric: str) -> bool:
    """Return whether trials of a kind have ends that are known by construction: the L0 of an SAE with a k."""
    return metric == "l0" and course.l0 is not None


def _by_construction(report: Report) -> tuple[float, float]:
    """Return the mean and the variance of the L0 of an SAE with a k."""
    assert report.course.l0 is not None
    is_exact = report.course.kind == "topk" and report.value >= _ALMOST * report.course.l0
    mean = math.log(max(min(report.value, report.course.l0), 1e-6))
    return mean, 0.0 if is_exact else _K_SD**2


def _from_evidence_alone(metric: str, column: Column, moments: Moments) -> Forecasts:
    """Return forecasts of a metric that the table does not know: the mean change of the finished trials."""
    n = moments.n
    if n < MIN_EVIDENCE:
        return Forecasts(metric, column.scaled, np.full(len(column), math.inf))
    mean = moments.with_change[0] / n
    variance = max(0.0, moments.squared_change - n * mean * mean) / (n - 1)
    # The mean is uncertain too, and few squares say little of the variance: the variance of Student's t.
    variance *= (n + 1) / n * (n - 1) / (n - 3)
    return Forecasts(metric, column.scaled + mean, np.full(len(column), variance))
