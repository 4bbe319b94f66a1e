"""Where a trial will be at its end: a normal distribution on the scale of each metric.

A linear regression of the change from a rung to the end on a few features (`features.py`), separately for each kind of
trial, metric and rung. Its prior comes from recorded curves (`table.py`); the finished trials of the experiment, and those
that are further ahead, turn it into a posterior. What is uncertain about the weights is shared by all trials of a kind
at a rung, and cancels where two alike ones are compared.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from saesweep.forecast.course import Course
from saesweep.forecast.evidence import Array, Evidence, Features, Key, Moments, centring, features_of, names_of
from saesweep.forecast.noise import Noise, cdf, quantile
from saesweep.forecast.scale import from_scale, to_scale
from saesweep.forecast.table import Prior, Table

MIN_EVIDENCE = 4
"""Finished trials of a kind before a metric that the table does not know is forecast from them."""
_K_SD = 0.02
"""What the L0 of an SAE that is exported with a threshold differs from its k, in logarithm: it is calibrated on other tokens."""
_ALMOST = 0.999
"""A topk SAE whose L0 is this much of its k has k active latents on every token, and will have."""


@dataclass(frozen=True)
class Forecast:
    """A metric at the end of a trial, on the metric's scale."""

    metric: str
    mean: float
    own_variance: float = 0.0
    key: Key | None = None
    """The regression that it comes from; None for a finished trial, and for what is known by construction."""
    features: Array = field(default_factory=lambda: np.zeros(0))
    """Centred."""
    covariance: Array = field(default_factory=lambda: np.zeros((0, 0)))
    """Of the weights."""
    freedom: float = math.inf
    """Degrees of freedom of the error, as of Student's t."""

    @property
    def sd(self) -> float:
        """Standard deviation of the whole error; infinite where nothing is known."""
        return math.sqrt(self.own_variance + self._shared_variance)

    @property
    def _shared_variance(self) -> float:
        return max(0.0, float(self.features @ self.covariance @ self.features)) if self.features.size else 0.0

    @property
    def is_known(self) -> bool:
        """Whether there is a forecast at all."""
        return math.isfinite(self.own_variance)

    @property
    def value(self) -> float:
        """The middle of the forecast, as a value of the metric."""
        return from_scale(self.metric, self.mean)

    def interval(self, probability: float = 0.9) -> tuple[float, float]:
        """Return the bounds, as values of the metric, between which the end lies with a probability."""
        reach = quantile(0.5 + probability / 2, self.freedom) * self.sd
        ends = (from_scale(self.metric, self.mean - reach), from_scale(self.metric, self.mean + reach))
        return min(ends), max(ends)

    def probability_below(self, scaled: float) -> float:
        """Return the probability that the end lies at or below a number on the scale; 1/2 where nothing is known."""
        if not self.is_known:
            return 0.5
        sd = self.sd
        return float(self.mean <= scaled) if sd == 0 else cdf((scaled - self.mean) / sd, self.freedom)

    def probability_above(self, scaled: float) -> float:
        """Return the probability that the end lies at or above a number on the scale; 1/2 where nothing is known."""
        if self.sd == 0:
            return float(self.mean >= scaled)
        return 1.0 - self.probability_below(scaled)


def probability_better(one: Forecast, other: Forecast, sign: int, slack: float = 0.0) -> float:
    """Return the probability that one trial ends better than another.

    Args:
        one: Its forecast.
        other: The other's forecast of the same metric.
        sign: 1 where lower is better on the scale, -1 where higher is.
        slack: How much worse still counts as better, on the scale.
    """
    if not (one.is_known and other.is_known):
        return 0.5
    if one.key is not None and one.key == other.key:
        apart = one.features - other.features
        shared = max(0.0, float(apart @ one.covariance @ apart))
    else:
        shared = one._shared_variance + other._shared_variance
    variance = one.own_variance + other.own_variance + shared
    lead = sign * (other.mean - one.mean) + slack
    if variance == 0:
        return 0.5 if lead == 0 else float(lead > 0)
    return cdf(lead / math.sqrt(variance), min(one.freedom, other.freedom))


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


@dataclass(frozen=True)
class Ahead:
    """A trial that passed a rung and is now forecast from a later one: nearly evidence."""

    report: Report
    end: Forecast


def forecast_all(
    table: Table, reports: Sequence[Report], evidence: Evidence, ahead: Iterable[Ahead] = (), noise: Noise | None = None
) -> list[Forecast]:
    """Return the forecasts of trials of one kind from one rung.

    Args:
        table: The prior.
        reports: Of one kind, metric and rung.
        evidence: Of the finished trials of the experiment.
        ahead: Live trials of the kind that have passed this rung.
        noise: How large errors are in this experiment; as in the table, and unsure, where nothing is known.
    """
    first = reports[0]
    if first.metric == "l0" and first.course.l0 is not None:
        return [_by_construction(report) for report in reports]
    moments = evidence.get(first.key, Moments())
    further = list(ahead)
    entry = table.entry(first.course.kind, first.course.family, first.metric)
    if entry is None:
        return _from_evidence_alone(reports, moments)
    prior = entry.at(first.course.leads[first.rung])
    names = names_of(first.course.family, first.metric)
    centre = _centre([r.features for r in reports] + [a.report.features for a in further], moments)
    to_centre = centring(centre, names)
    noise = noise or Noise()
    variance = max(prior.error_sd, 1e-6) ** 2 * noise.scale
    weights, covariance = _posterior(prior, moments, further, to_centre, variance)
    found = []
    for report in reports:
        x = to_centre @ np.asarray(report.features)
        found.append(
            Forecast(
                report.metric, report.scaled + float(x @ weights), variance, first.key, x, covariance, noise.freedom
            )
        )
    return found


def _posterior(
    prior: Prior, moments: Moments, ahead: Sequence[Ahead], to_centre: Array, variance: float
) -> tuple[Array, Array]:
    """Return the mean and the covariance of the weights, given what finished trials and those further ahead have shown."""
    n = len(prior.means)
    products, with_change = np.zeros((n, n)), np.zeros(n)
    if moments.n:
        products = to_centre @ np.asarray(moments.products) @ to_centre.T
        with_change = to_centre @ np.asarray(moments.with_change)
    for other in ahead:
        x = to_centre @ np.asarray(other.report.features)
        weight = variance / (variance + other.end.sd**2)  # an end that is itself a forecast counts for less
        products = products + weight * np.outer(x, x)
        with_change = with_change + weight * x * (other.end.mean - other.report.scaled)
    return prior.posterior(variance, products, with_change)


def _centre(features: Sequence[Features], moments: Moments) -> Features:
    """Return the mean of the features over all trials of the experiment that have come as far."""
    total = np.sum(np.asarray(features), axis=0)
    n = len(features)
    if moments.n:
        total, n = total + np.asarray(moments.products)[0], n + moments.n
    return tuple(float(value) for value in total / n)


def _by_construction(report: Report) -> Forecast:
    """Return the forecast of the L0 of an SAE with a k."""
    assert report.course.l0 is not None
    is_exact = report.course.kind == "topk" and report.value >= _ALMOST * report.course.l0
    mean = math.log(max(min(report.value, report.course.l0), 1e-6))
    return Forecast("l0", mean, 0.0 if is_exact else _K_SD**2)


def _from_evidence_alone(reports: Sequence[Report], moments: Moments) -> list[Forecast]:
    """Return forecasts of a metric that the table does not know: the mean change of the finished trials."""
    n = moments.n
    if n < MIN_EVIDENCE:
        return [Forecast(report.metric, report.scaled, math.inf) for report in reports]
    mean = moments.with_change[0] / n
    variance = max(0.0, moments.squared_change - n * mean * mean) / (n - 1)
    # The mean is uncertain too, and few squares say little of the variance: the variance of Student's t.
    variance *= (n + 1) / n * (n - 1) / (n - 3)
    return [Forecast(report.metric, report.scaled + mean, variance) for report in reports]
