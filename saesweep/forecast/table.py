"""How trials change between a point of their run and its end, from recorded curves: the prior of every forecast.

`table.json` is written by `benchmarks/curves/fit.py` from the bench of learning curves. For each kind of trial and metric it
holds, at several leads (see `Course`), on the scale of `scale.py`,

    end = here + sum over features of (weight * feature) + error

with the mean of the weights over the recorded sources, their covariance between them, and the standard deviation of the
error. Features are counted from their means over the trials of an experiment that have come as far, so that the first
weight, of the constant 1, is the mean change.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from importlib import resources
from typing import Any

import numpy as np

from saesweep.forecast.evidence import Array


@dataclass(frozen=True)
class Prior:
    """What is known of the change of a metric before the experiment has shown any of it."""

    means: tuple[float, ...]
    """Of the weights."""
    covariance: tuple[tuple[float, ...], ...]
    """Between sources."""
    error_sd: float
    """Between the trials of one experiment, given their features: the geometric mean over sources."""

    def posterior(self, variance: float, products: Array, with_change: Array) -> tuple[Array, Array]:
        """Return the mean and the covariance of the weights, given what the experiment has shown.

        Args:
            variance: Of the errors.
            products: [n, n] sum over trials of the products of their centred features.
            with_change: [n] sum of the features times the change.
        """
        precision = self._precision
        covariance = np.asarray(np.linalg.inv(precision + products / variance), dtype=np.float64)
        mean: Array = covariance @ (precision @ np.asarray(self.means) + with_change / variance)
        return mean, covariance

    @cached_property
    def _precision(self) -> Array:
        inverse = np.linalg.inv(np.asarray(self.covariance) + 1e-9 * np.eye(len(self.means)))
        return np.asarray(inverse, dtype=np.float64)


@dataclass(frozen=True)
class Entry:
    """The priors of one metric for one kind of trial, by lead."""

    leads: tuple[float, ...]
    """Ascending, from 0: the end of the run."""
    rows: tuple[tuple[float, ...], ...]
    """By lead: the means of the weights, the lower triangle of their covariance, and the standard deviation of the error."""
    size: int
    """Number of weights."""

    def __hash__(self) -> int:
        return hash(self.leads)  # the rows are long, and few entries have the same leads

    @lru_cache(maxsize=1024)  # noqa: B019  an entry is as good as a constant, and few leads occur
    def at(self, lead: float) -> Prior:
        """Return the prior at a lead: between the recorded ones by straight lines, beyond the last in proportion."""
        right = min(max(bisect_left(self.leads, lead), 1), len(self.leads) - 1)
        share = (lead - self.leads[right - 1]) / (self.leads[right] - self.leads[right - 1])
        # Covariances stay covariances in between and, scaled up alone, beyond the last.
        share, beyond = min(share, 1.0), max(1.0, lead / self.leads[-1])
        row = [a + (b - a) * share for a, b in zip(self.rows[right - 1], self.rows[right], strict=True)]
        n, triangle = self.size, iter(row[self.size : -1])
        lower = [[next(triangle) * beyond**2 for _ in range(i + 1)] for i in range(n)]
        covariance = tuple(tuple(lower[max(i, j)][min(i, j)] for j in range(n)) for i in range(n))
        return Prior(tuple(beyond * mean for mean in row[:n]), covariance, row[-1] * beyond)


@dataclass(frozen=True)
class Table:
    """All entries."""

    entries: Mapping[str, Mapping[str, Entry]]
    """By kind, then by metric; kinds that were not recorded have the entry of their family, `any k` for `k`."""

    def entry(self, kind: str, family: str, metric: str) -> Entry | None:
        """Return the entry of a kind, or of its family; None for a metric that was not recorded."""
        known = self.entries.get(kind) or self.entries.get(f"any {family}", {})
        return known.get(_RECORDED_AS.get(metric, metric))


_RECORDED_AS = {"ce_loss_score": "delta_ce", "kl_div": "delta_ce", "kl_div_score": "delta_ce"}
"""Metrics that are, on their scale, a constant away from a recorded one, or move as it does."""


def from_json(data: Mapping[str, Any]) -> Table:
    """Return the table that a JSON file describes."""
    return Table(
        {
            kind: {
                metric: Entry(tuple(entry["leads"]), tuple(map(tuple, entry["rows"])), entry["size"])
                for metric, entry in by_metric.items()
            }
            for kind, by_metric in data.items()
        }
    )


@cache
def shipped_table() -> Table:
    """Return the table that comes with the package."""
    text = resources.files("saesweep.forecast").joinpath("table.json").read_text(encoding="utf-8")
    return from_json(json.loads(text))
