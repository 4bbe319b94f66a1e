"""Self-contained pages: templates, embedded data and scripts, and the figures of a page with where each stands and its data."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from saesweep.report.style import style_of
from saesweep.version import __version__


def render(template: str, **values: Any) -> str:
    """Return a page that asks nothing of any network. Every value is escaped but what this module makes."""
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("saesweep.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "asset": lambda name: Markup(asset(name)),
        "json_script": json_script,
        "packed_script": packed_script,
        "packed_plotly": packed_plotly,
        "colour_of": lambda architecture: style_of(architecture).colour,
        "pattern_of": lambda architecture: style_of(architecture).pattern,
        "version": __version__,
    }
    return environment


def json_script(element_id: str, data: Any) -> Markup:
    """Return JSON data as an element that no content can break out of. Data may be JSON text already."""
    text = data if isinstance(data, str) else json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    # "<" opens "</script>" and "<!--"; inside JSON it only stands in strings, where its escape means the same.
    return Markup('<script type="application/json" id="{}">{}</script>').format(
        element_id, Markup(text.replace("<", "\\u003c"))
    )


def packed_script(element_id: str, text: str) -> Markup:
    """Return text as an element, compressed; `unpack` of the page's scripts reads it."""
    packed = base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()
    return Markup('<script type="text/plain" id="{}">{}</script>').format(element_id, packed)


@cache
def packed_plotly() -> Markup:
    """Return plotly.js as an element, compressed: 2 MB instead of 4.8, so that the page stays below 5 MB."""
    from plotly.offline import get_plotlyjs

    return packed_script("plotly-gz", get_plotlyjs())


def asset(name: str) -> str:
    """Return a file of this package as text."""
    return files("saesweep.report").joinpath("assets").joinpath(name).read_text(encoding="utf-8")


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
