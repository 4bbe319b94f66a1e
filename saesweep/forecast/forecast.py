"""Where a trial will be at its end: a distribution on the scale of each metric, and how two of them compare.

The scale is one where a change means the same wherever a trial stands. Reconstruction errors shrink by factors, so that they
are forecast in logarithm: of the error itself, or, for a share such as explained variance, of what is missing to 1. Everything
else is forecast as it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from saesweep.forecast.evidence import Array, Key
from saesweep.forecast.noise import cdf, quantile
from saesweep.specs import LOG_METRICS

SHARES = ("explained_variance", "ce_loss_score", "kl_div_score")
"""Metrics that approach 1: the logarithm of 1 - x is forecast."""
_FLOOR = 1e-6
"""Values at or below 0 by chance (a delta_ce) count as this."""


def to_scale(metric: str, value: float) -> float:
    """Return a value on the scale of its metric."""
    if metric in SHARES:
        return math.log(max(1.0 - value, _FLOOR))
    if metric in LOG_METRICS:
        return math.log(max(value, _FLOOR))
    return value


def from_scale(metric: str, scaled: float) -> float:
    """Return the value that `to_scale` gave."""
    if metric in SHARES:
        return 1.0 - math.exp(scaled)
    if metric in LOG_METRICS:
        return math.exp(scaled)
    return scaled


def orientation(metric: str) -> int:
    """Return 1 where a larger value is larger on the scale too, -1 where it is smaller."""
    return -1 if metric in SHARES else 1


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
        return math.sqrt(self.own_variance + self.shared_variance)

    @property
    def shared_variance(self) -> float:
        """Variance of the error that comes from what is uncertain about the weights."""
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
        shared = one.shared_variance + other.shared_variance
    variance = one.own_variance + other.own_variance + shared
    lead = sign * (other.mean - one.mean) + slack
    if variance == 0:
        return 0.5 if lead == 0 else float(lead > 0)
    return cdf(lead / math.sqrt(variance), min(one.freedom, other.freedom))
