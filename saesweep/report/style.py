"""Colours, marks and layout that all figures share; colours belong to architectures, in every figure and table."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

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


ARCHITECTURE_STYLES = {
    "batchtopk": ArchitectureStyle("#0072B2", "circle"),
    "topk": ArchitectureStyle("#D55E00", "square"),
    "jumprelu": ArchitectureStyle("#009E73", "diamond"),
    "gated": ArchitectureStyle("#CC79A7", "triangle-up"),
    "standard": ArchitectureStyle("#E69F00", "cross"),
    "matryoshka_batchtopk": ArchitectureStyle("#56B4E9", "x"),
}
"""Okabe and Ito's palette, which people with colour blindness can tell apart too."""
_OTHER_COLOURS = ("#8A8A8A", "#8F6BC4")
_OTHER_SYMBOLS = ("star-triangle-down", "hexagon", "pentagon", "star-diamond", "bowtie")


def style_of(architecture: str) -> ArchitectureStyle:
    """Return the style of an architecture; of one that a plug-in adds, by its name alone."""
    known = ARCHITECTURE_STYLES.get(architecture)
    if known is not None:
        return known
    number = zlib.crc32(architecture.encode())
    return ArchitectureStyle(
        _OTHER_COLOURS[number % len(_OTHER_COLOURS)], _OTHER_SYMBOLS[number // 2 % len(_OTHER_SYMBOLS)]
    )


def marker(architecture: str, **more: Any) -> dict[str, Any]:
    """Return a marker of an architecture, outlined so that pale colours keep their contrast."""
    style = style_of(architecture)
    return {"color": style.colour, "symbol": style.symbol, "size": 9, "line": {"color": INK, "width": 0.8}, **more}


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
