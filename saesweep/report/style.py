"""What all figures share: colours, marks, layout, and ranges of axes that hold for zero, one or many values.

Colours belong to architectures, in every figure and table. The ticks of axes are plotly's own, written out in full.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from saesweep.display.text import label
from saesweep.specs import LOG_METRICS, METRICS

INK, MUTED, GRID, PAPER = "var(--ink)", "var(--muted)", "var(--grid)", "var(--paper)"
"""Colours that the page's script looks up in its style sheet, so that the plots follow light and dark mode."""
ACCENT = "#0072B2"
"""Of marks that belong to no architecture."""


@dataclass(frozen=True)
class ArchitectureStyle:
    """How an architecture looks everywhere."""

    colour: str
    symbol: str
    """Plotly's name of its marker: print and colour blindness leave it readable."""
    dash: str = "solid"
    """Of a line, where nothing else decides it."""
    pattern: str = ""
    """Of a bar, as plotly names it, and of the mark in a table; empty: none."""


ARCHITECTURE_STYLES = {
    "batchtopk": ArchitectureStyle("#0072B2", "circle"),
    "topk": ArchitectureStyle("#D55E00", "square"),
    "jumprelu": ArchitectureStyle("#009E73", "diamond"),
    "gated": ArchitectureStyle("#CC79A7", "triangle-up"),
    "standard": ArchitectureStyle("#E69F00", "cross"),
    "matryoshka_batchtopk": ArchitectureStyle("#56B4E9", "x"),
    "abstopk": ArchitectureStyle("#882255", "hexagon"),
    "multi_k": ArchitectureStyle("#D55E00", "star"),
    "matching_pursuit": ArchitectureStyle("#117733", "pentagon"),
}
"""Okabe and Ito's palette, which people with colour blindness can tell apart too, and two of Tol's; multi_k has the colour of topk,
which it is exported as."""
_OTHER_COLOURS = ("#8A8A8A", "#8F6BC4")
_OTHER_SYMBOLS = ("star-triangle-down", "hexagon", "pentagon", "star-diamond", "bowtie")


def style_of(architecture: str) -> ArchitectureStyle:
    """Return the style of an architecture; of one that a plug-in adds, by its name alone.

    A transcoder has the colour of its SAE, an open marker, broken lines and striped bars, with a dot in it, dotted and
    chequered ones for a skip connection; a crosscoder a marker with a dot and dotted bars.
    """
    if (of := architecture.removesuffix("_crosscoder")) in ARCHITECTURE_STYLES and of != architecture:
        return ArchitectureStyle(ARCHITECTURE_STYLES[of].colour, f"{ARCHITECTURE_STYLES[of].symbol}-dot", pattern=".")
    sae, is_transcoder, _ = architecture.partition("_transcoder")
    known = ARCHITECTURE_STYLES.get(sae.removesuffix("_skip"))
    if known is not None:
        if not is_transcoder:
            return known
        opened, dash, pattern = ("-open-dot", "dot", "x") if sae.endswith("_skip") else ("-open", "dash", "/")
        return ArchitectureStyle(known.colour, known.symbol + opened, dash, pattern)
    number = zlib.crc32(architecture.encode())
    return ArchitectureStyle(
        _OTHER_COLOURS[number % len(_OTHER_COLOURS)], _OTHER_SYMBOLS[number // 2 % len(_OTHER_SYMBOLS)]
    )


def marker(architecture: str, **more: Any) -> dict[str, Any]:
    """Return a marker of an architecture, outlined so that pale colours keep their contrast."""
    style = style_of(architecture)
    width = 1.8 if "-open" in style.symbol else 0.8  # an open one is nothing but its outline
    return {"color": style.colour, "symbol": style.symbol, "size": 9, "line": {"color": INK, "width": width}, **more}


def bar_of(architecture: str, **more: Any) -> dict[str, Any]:
    """Return the marker of an architecture's bars."""
    style = style_of(architecture)
    pattern = {"shape": style.pattern, "fillmode": "overlay", "fgcolor": PAPER, "size": 7, "solidity": 0.25}
    return {"color": style.colour, **({"pattern": pattern} if style.pattern else {}), **more}


def text_on(colour: str) -> str:
    """Return black or white, whichever is read better on a colour."""
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    luminance = 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2
    return "#111111" if luminance > 0.17 else "#ffffff"


def figure(*, x: str, y: str, height: int = 440, **layout: Any) -> go.Figure:
    """Return an empty figure with named axes."""
    made = go.Figure()
    made.update_layout(
        template="none",
        height=height,
        margin={"l": 68, "r": 20, "t": 60, "b": 52},
        font={"family": "system-ui, sans-serif", "size": 13, "color": INK},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        hovermode="closest",
        hoverlabel={"bgcolor": PAPER, "bordercolor": MUTED, "font": {"color": INK, "size": 13}, "align": "left"},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "itemwidth": 30},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": MUTED, "activecolor": INK},
        **layout,
    )
    line = {"gridcolor": GRID, "linecolor": MUTED, "tickcolor": MUTED, "zeroline": False, "ticks": "outside"}
    made.update_xaxes(title={"text": x, "standoff": 8}, automargin=True, **line)
    made.update_yaxes(title={"text": y, "standoff": 8}, automargin=True, **line)
    return made


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
