"""The figures of a page: where each stands, and its data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import plotly.graph_objects as go


@dataclass(frozen=True, kw_only=True)
class Plot:
    """The place of a figure in the page; with several choices a menu changes what it shows."""

    key: str
    """Its name, of the PNG file too."""
    height: int
    choices: Sequence[tuple[str, str]]
    """(element with the figure's data, what the menu calls it); the first is shown."""
    menu: str
    """What the menu chooses."""
    note: str
    """What the reader must know to read it."""


@dataclass
class Plots:
    """Collects the figures of a page with their data."""

    data: dict[str, str] = field(default_factory=dict)
    """By element, the figure as JSON."""

    def add(self, key: str, made: go.Figure | Mapping[str, go.Figure], note: str = "", *, menu: str = "show") -> Plot:
        """Return the place of a figure, or of several that a menu chooses from."""
        figures = dict(made) if isinstance(made, Mapping) else {"": made}
        choices = []
        for index, (label, shown) in enumerate(figures.items()):
            element = f"figure-{key}" + (f"-{index}" if index else "")
            self.data[element] = shown.to_json()
            choices.append((element, label))
        heights = [int(shown.layout.height or 440) for shown in figures.values()]
        return Plot(key=key, height=max(heights), choices=choices, menu=menu, note=note)
