"""Numbers and times as short text. Non-finite numbers show as `-`, never as an error."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from saesweep.messages import printable, short_count

MISSING = "-"

HEADINGS: Mapping[str, str] = {
    "l0": "L0",
    "delta_ce": "ΔCE",
    "explained_variance": "expl.\nvar",
    "explained_variance_no_sinks": "expl. var\nno sinks",
    "dead_fraction": "dead %",
    "mse": "MSE",
    "l1": "L1",
    "cosine_similarity": "cosine",
    "l2_ratio": "norm\nratio",
    "relative_reconstruction_bias": "rel.\nbias",
    "ce_loss_score": "CE\nscore",
    "ce_loss_with_sae": "CE with\nSAE",
    "kl_div": "KL",
    "kl_div_score": "KL\nscore",
    "probe_accuracy": "probe\nacc.",
    "probe_auc": "probe\nAUC",
    "decoder_cosine": "dec.\ncosine",
    "seed_stability": "seed\nstable",
    "seed_stability_both": "stable\nboth",
}
"""Short column headings of the known metrics, in one or two lines; any other metric is shown under its own name."""

_DECIMALS: Mapping[str, int] = {
    "delta_ce": 4,
    "explained_variance": 4,
    "explained_variance_no_sinks": 4,
    "cosine_similarity": 4,
    "l2_ratio": 4,
    "relative_reconstruction_bias": 4,
    "ce_loss_score": 4,
    "ce_loss_with_sae": 4,
    "kl_div": 4,
    "kl_div_score": 4,
    "probe_accuracy": 4,
    "probe_auc": 4,
    "decoder_cosine": 4,
    "seed_stability": 3,
    "seed_stability_both": 3,
}
ASCII_TWINS: Mapping[str, str] = {
    "◆": "*",
    "Δ": "d",
    "…": ".",
    "★": "!",
    "λ": "c",
    "·": "-",
    "━": "#",
    "╸": ">",
    "╺": " ",
    "─": "-",
} | dict(zip("▁▂▃▄▅▆▇█±⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", "_.-=+*#@~|/-|/-|/-|", strict=True))
"""Every character beyond ASCII that a display draws, with a plain one of the same width."""


def short_rate(tokens_per_second: float) -> str:
    """Return a rate such as `152k`, without its unit."""
    return short_count(round(tokens_per_second)) if math.isfinite(tokens_per_second) else MISSING


def duration(seconds: float) -> str:
    """Return wall-clock seconds as `4s`, `3m 12s`, `5h 02m` or `2d 03h`."""
    if not math.isfinite(seconds) or seconds < 0:
        return MISSING
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes_rest = divmod(minutes, 60)
    days, hours_rest = divmod(hours, 24)
    if days:
        return f"{days}d {hours_rest:02d}h"
    if hours:
        return f"{hours}h {minutes_rest:02d}m"
    return f"{minutes}m {rest:02d}s" if minutes else f"{rest}s"


def percent(part: float, whole: float) -> str:
    """Return `43%`; 100 is kept for what is really done."""
    if whole <= 0:
        return MISSING
    share = 100 * part / whole
    return "100%" if share >= 100 else f"{min(share, 99):.0f}%"


def metric_value(name: str, value: float | None) -> str:
    """Return a metric with the digits that matter; `dead_fraction` as a percentage without its sign."""
    if value is None or not math.isfinite(value):
        return MISSING
    if name == "dead_fraction":
        return f"{100 * value:.1f}"
    if name == "l0":
        return f"{value:.1f}"
    if name in _DECIMALS and abs(value) < 1000:
        return f"{value:.{_DECIMALS[name]}f}"
    return f"{value:.4g}"


def setting(value: Any) -> str:
    """Return a searched parameter's value: floats with three significant digits, the rest as it is."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def parameter_label(path: str) -> str:
    """Return how people see a searched parameter: its path in the file, but for what is no field of it."""
    return "target L0" if path == "target_l0" else path


def heading(metric: str) -> str:
    """Return the column heading of a metric, in one or two lines."""
    return HEADINGS.get(metric, metric)


def label(metric: str) -> str:
    """Return the short name of a metric, in one line."""
    return heading(metric).replace("\n", " ")


def wraps_softly(text: str, width: int) -> bool:
    """Return whether a line is left to the terminal to wrap, so that what is copied from it has no line break.

    Commands and paths that are longer than a line are; other lines are wrapped between words.
    """
    return "saesweep " in text or any(len(word) > width for word in text.split())


def encodable(text: str, encoding: str | None) -> str:
    """Return `text` without what steers a terminal, and what `encoding` cannot say replaced by characters of the same width.

    A log file opened as ASCII or cp1252 must not end a training run with a UnicodeEncodeError.
    """
    text, target = printable(text), encoding or "utf-8"
    try:
        text.encode(target)
    except UnicodeEncodeError:
        return (
            text.translate({ord(sign): plain for sign, plain in ASCII_TWINS.items()})
            .encode(target, errors="replace")
            .decode(target)
        )
    return text
