"""Ranges of axes that hold for zero, one or many values; their ticks are plotly's own, written out in full."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Any

from saesweep.display.text import label
from saesweep.specs import LOG_METRICS, METRICS

_PADDING = 0.06
_MAX_TICKS = 7
_MIN_GAP = 0.08
"""Between two labels, as a share of the axis: closer ones would overlap."""
_MIN_RATIO = 2.0
"""A logarithmic axis spans at least this factor: on a narrower one no round number might lie."""
_NAMES = {
    "l0": "L0 (active latents per token)",
    "delta_ce": "ΔCE (nats per token)",
    "ce_loss_score": "CE score (1: the model's own loss)",
    "kl_div": "KL (nats per token)",
    "explained_variance": "explained variance",
    "mse": "MSE",
    "dead_fraction": "dead latents (share)",
}


def metric_title(name: str) -> str:
    """Return how an axis names a held-out metric."""
    return _NAMES.get(name) or label(name)


def is_better_high(name: str, goals: Mapping[str, str]) -> bool:
    """Return whether more of a metric is better: as the objective says, else as it is by nature."""
    better = goals.get(name) or (METRICS[name].better if name in METRICS else "maximize")
    return better == "maximize"


def axis_for(values: Iterable[float], *, log: bool = False, from_zero: bool = False) -> dict[str, Any]:
    """Return type, range and tick format of an axis.

    Args:
        values: What it must show; those that are not finite, or on a logarithmic axis not above 0, are left out.
        log: Logarithmic.
        from_zero: Begins at 0.
    """
    known = [value for value in values if math.isfinite(value) and (value > 0 or not log)]
    if log:
        low, high = (min(known), max(known)) if known else (1.0, 100.0)
        if high / low < _MIN_RATIO:
            middle = math.sqrt(low * high)
            low, high = middle / math.sqrt(_MIN_RATIO), middle * math.sqrt(_MIN_RATIO)
        begin, end = math.log10(low), math.log10(high)
    else:
        begin, end = (min(known), max(known)) if known else (0.0, 1.0)
        if from_zero:
            begin = min(0.0, begin)
        if end <= begin:
            room = abs(end) * 0.1 or 0.5
            begin, end = (begin, end + room) if from_zero else (begin - room, end + room)
    padding = _PADDING * (end - begin)
    bottom = begin if from_zero and not log else begin - padding
    axis = {"type": "log" if log else "linear", "range": [bottom, end + padding]}
    if log:
        ticks = log_ticks(bottom, end + padding)
        return {**axis, "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}
    return {**axis, "tickformat": "~g" if max(map(abs, known), default=0.0) < 1e6 else "~s"}


def log_ticks(begin: float, end: float) -> list[float]:
    """Return round numbers for a logarithmic axis between two exponents: as many as have room, two at least.

    Plotly's own leave out the leading digit (`2` for 20) or crowd below a power of ten.
    """
    low, high = 10**begin, 10**end
    exponents = range(math.floor(begin), math.ceil(end) + 1)
    candidates = [
        [mantissa * 10.0**e for e in exponents for mantissa in mantissas]
        for mantissas in ((1, 1.5, 2, 3, 5, 7), (1, 2, 3, 5), (1, 2, 5), (1, 3), (1,))
    ]
    candidates += [[10.0**e for e in exponents if e % every == 0] for every in (2, 3, 5, 10)]
    for step in (
        mantissa * 10.0**e for e in range(math.floor(begin) - 1, math.ceil(end) + 1) for mantissa in (1, 2, 2.5, 5)
    ):
        if (high - low) / step <= _MAX_TICKS + 1:
            candidates.append([step * n for n in range(math.ceil(low / step), math.floor(high / step) + 1)])
    fitting = []
    for ticks in candidates:
        kept = [tick for tick in ticks if low <= tick <= high]
        gaps = [math.log10(b / a) / (end - begin) for a, b in itertools.pairwise(kept)]
        if 2 <= len(kept) <= _MAX_TICKS and min(gaps) >= _MIN_GAP:
            fitting.append(kept)
    return [float(f"{tick:.6g}") for tick in max(fitting, key=len, default=[low, high])]


def metric_axis(name: str, values: Iterable[float]) -> dict[str, Any]:
    """Return the axis of a held-out metric; one that spans decades is logarithmic where all its values allow it."""
    known = [value for value in values if math.isfinite(value)]
    return axis_for(
        known, log=name in LOG_METRICS and all(value > 0 for value in known) and bool(known or name == "l0")
    )
