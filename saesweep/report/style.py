"""Colours, marks and layout that all figures share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F", "#000000")
"""Okabe and Ito's palette: told apart by people with colour blindness too."""
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star-triangle-down", "hexagon")
_TICKS = [mantissa * 10.0**exponent for exponent in range(-9, 10) for mantissa in (1, 2, 5)]
LOG_TICKS = {"tickmode": "array", "tickvals": _TICKS, "ticktext": [f"{tick:g}" for tick in _TICKS]}
"""Ticks 1, 2, 5, 10, ... of a logarithmic axis, written out (plotly's own say `2` for 20)."""
_INK, _GRID = "#22272e", "#e6e8eb"


def colours(names: Sequence[str]) -> dict[str, str]:
    """Return a colour for each architecture."""
    return {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(names)}


def symbols(names: Sequence[str]) -> dict[str, str]:
    """Return a marker for each architecture: print and colour blindness leave it readable."""
    return {name: _SYMBOLS[i % len(_SYMBOLS)] for i, name in enumerate(names)}


def figure(*, x: str, y: str, height: int = 440, **layout: Any) -> go.Figure:
    """Return an empty figure with named axes."""
    made = go.Figure()
    made.update_layout(
        template="none",
        height=height,
        margin={"l": 72, "r": 24, "t": 28, "b": 60},
        font={"family": "system-ui, sans-serif", "size": 13, "color": _INK},
        paper_bgcolor="white",
        plot_bgcolor="white",
        hovermode="closest",
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        **layout,
    )
    made.update_xaxes(title=x, gridcolor=_GRID, linecolor="#b8bec6", zeroline=False, ticks="outside")
    made.update_yaxes(title=y, gridcolor=_GRID, linecolor="#b8bec6", zeroline=False, ticks="outside")
    return made


def restyle(made: go.Figure, height: int) -> go.Figure:
    """Give a figure of Optuna's our fonts and margins."""
    made.update_layout(
        template="none",
        title=None,
        height=height,
        margin={"l": 72, "r": 40, "t": 40, "b": 60},
        font={"family": "system-ui, sans-serif", "size": 13, "color": _INK},
        paper_bgcolor="white",
        plot_bgcolor="white",
    )
    return made
