"""Many reports and many forecasts of one metric at once, a row for each trial: a driver with many workers has thousands.

Each row is computed by the operations that a single trial would take, in the same order, so that a forecast does not
depend on who else is forecast with it. Only the probabilities that `about_...` return may differ in their last digits from
those of `forecast.py`: they say which rows are worth an exact look.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from saesweep.forecast.evidence import Array, Key
from saesweep.forecast.forecast import Forecast
from saesweep.forecast.noise import approx_cdf

Rows = NDArray[np.signedinteger[Any]]
"""Indices of rows."""


def tie_threshold(best: float) -> float:
    """Return the smallest approximate probability behind which the exact one may still be as high as behind the best.

    Approximate ones differ by rounding: of the probability itself where it is small, of what is missing to 1 where it is large.
    """
    return best - 1e-9 * min(best, 1.0 - best) - 1e-14


@dataclass(frozen=True)
class Column:
    """What trials of one kind have reported of one metric at one rung."""

    features: Array
    """[n, d] As `features_of` returns them; d is 0 where the end is known by construction."""
    scaled: Array
    """[n] The values on the metric's scale, or the ends that are known by construction."""
    variances: Array
    """[n] Of the ends that are known by construction; 0 for others."""

    def __len__(self) -> int:
        return len(self.scaled)

    @property
    def arrays(self) -> tuple[Array, Array, Array]:
        """All that there is of each row."""
        return self.features, self.scaled, self.variances

    @classmethod
    def joined(cls, columns: Sequence[Column]) -> Column:
        """Return the rows of all columns, of at least one, in their order."""
        return cls(*map(np.concatenate, zip(*(column.arrays for column in columns), strict=True)))


@dataclass(frozen=True)
class Forecasts(Sequence[Forecast]):
    """Forecasts of one metric for trials of one kind from one rung; of finished trials, what they ended with."""

    metric: str
    means: Array
    own_variances: Array
    key: Key | None = None
    features: Array = field(default_factory=lambda: np.zeros((0, 0)))
    """[n, d] Centred; without columns where nothing is regressed."""
    covariance: Array = field(default_factory=lambda: np.zeros((0, 0)))
    freedom: float = math.inf

    def __len__(self) -> int:
        return len(self.means)

    @overload
    def __getitem__(self, row: int) -> Forecast: ...

    @overload
    def __getitem__(self, row: slice) -> Forecasts: ...

    def __getitem__(self, row: int | slice) -> Forecast | Forecasts:
        if isinstance(row, slice):
            return self.taken(np.arange(len(self))[row])
        features = self.features[row] if self.features.size else np.zeros(0)
        return Forecast(
            self.metric,
            float(self.means[row]),
            float(self.own_variances[row]),
            self.key,
            features,
            self.covariance,
            self.freedom,
        )

    def taken(self, rows: Rows) -> Forecasts:
        """Return some of the rows."""
        features = self.features[rows] if self.features.size else self.features
        return Forecasts(
            self.metric, self.means[rows], self.own_variances[rows], self.key, features, self.covariance, self.freedom
        )

    @property
    def sds(self) -> list[float]:
        """Standard deviation of the whole error of each row, as `Forecast.sd` has it."""
        if not self.features.size:
            return [math.sqrt(own) for own in self.own_variances.tolist()]
        shared = np.matmul(np.matmul(self.features[:, None, :], self.covariance), self.features[:, :, None])
        total = self.own_variances + np.maximum(0.0, shared[:, 0, 0])
        return [math.sqrt(variance) for variance in total.tolist()]

    @cached_property
    def _variances(self) -> Array:
        if not self.features.size:
            return self.own_variances
        shared = np.einsum("nd,nd->n", self.features @ self.covariance, self.features)
        found: Array = self.own_variances + np.maximum(0.0, shared)
        return found

    def approx_probability_below(self, scaled: float | Array) -> Array:
        """Return about which probability each end has of lying at or below a number on the scale."""
        return _approx_probability(scaled - self.means, self._variances, self.freedom, tied=1.0)

    def approx_probability_above(self, scaled: float | Array) -> Array:
        """Return about which probability each end has of lying at or above a number on the scale."""
        return _approx_probability(self.means - scaled, self._variances, self.freedom, tied=1.0)

    def approx_probability_better(self, others: Sequence[Forecast], sign: int, slack: float = 0.0) -> Array:
        """Return [others, n] about which probability each row has of ending better than others (see `probability_better`)."""
        means = np.array([other.mean for other in others])
        leads = sign * (means[:, None] - self.means) + slack
        variances = (
            np.array([other.own_variance + other.shared_variance for other in others])[:, None] + self._variances
        )
        alike = [place for place, other in enumerate(others) if self.key is not None and other.key == self.key]
        if alike:  # what is uncertain about the weights cancels, as far as the features are the same
            features = np.stack([others[place].features for place in alike])
            own = np.array([others[place].own_variance for place in alike])[:, None] + self.own_variances
            variances[alike] = np.maximum(own, variances[alike] - 2 * (features @ self.covariance @ self.features.T))
        found = np.empty_like(leads)
        freedoms = [min(self.freedom, other.freedom) for other in others]
        for freedom in set(freedoms):
            rows = [place for place, own_freedom in enumerate(freedoms) if own_freedom == freedom]
            found[rows] = _approx_probability(leads[rows], variances[rows], freedom, tied=0.5)
        return found


def _approx_probability(leads: Array, variances: Array, freedom: float, *, tied: float) -> Array:
    """Return about the distribution function of leads over standard deviations; 1/2 where the variance is infinite."""
    certain = variances == 0
    if not certain.any():
        return approx_cdf(leads / np.sqrt(variances), freedom)
    found = approx_cdf(leads / np.sqrt(np.where(certain, 1.0, variances)), freedom)
    return np.where(certain, np.where(leads == 0, tied, leads > 0), found)
