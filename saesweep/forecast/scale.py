"""The scale on which metrics are forecast: one where a change means the same wherever a trial stands.

Reconstruction errors shrink by factors, so that they are forecast in logarithm: of the error itself, or, for a share such
as explained variance, of what is missing to 1. Everything else is forecast as it is.
"""

from __future__ import annotations

import math

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
