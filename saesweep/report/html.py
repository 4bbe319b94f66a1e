"""Pieces of a self-contained page: escaping, tables, embedded data."""

from __future__ import annotations

import base64
import gzip
import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any


@dataclass(frozen=True)
class Cells:
    """One table row."""

    cells: Sequence[str]
    css_class: str = ""


def escape(text: object) -> str:
    """Return text that is safe in HTML and in attributes."""
    return html.escape(str(text), quote=True)


def table(heads: Sequence[str], rows: Sequence[Cells], text_columns: Sequence[int]) -> str:
    """Return an HTML table; numbers are right-aligned, `text_columns` left."""

    def line(tag: str, cells: Sequence[str], css_class: str) -> str:
        body = "".join(
            f"<{tag}{' class=text' if i in text_columns else ''}>{escape(cell)}</{tag}>" for i, cell in enumerate(cells)
        )
        return f"<tr{f' class={css_class}' if css_class else ''}>{body}</tr>"

    body = "\n".join(line("td", row.cells, row.css_class) for row in rows)
    return f'<div class="scroll"><table><thead>{line("th", heads, "")}</thead><tbody>\n{body}\n</tbody></table></div>'


def json_script(element_id: str, data: Any) -> str:
    """Return JSON data as an element that no content can break out of. Data may be JSON text already."""
    text = data if isinstance(data, str) else json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    # "<" opens "</script>" and "<!--"; inside JSON it only stands in strings, where its escape means the same.
    safe = text.replace("<", "\\u003c")
    return f'<script type="application/json" id="{element_id}">{safe}</script>'


@cache
def packed_plotly() -> str:
    """Return plotly.js as an element, compressed: 2 MB instead of 4.8, so that the page stays below 5 MB."""
    from plotly.offline import get_plotlyjs

    packed = base64.b64encode(gzip.compress(get_plotlyjs().encode(), 9, mtime=0)).decode()
    return f'<script type="text/plain" id="plotly-gz">{packed}</script>'


def asset(name: str) -> str:
    """Return a file of this package as text."""
    return files("saesweep.report").joinpath(name).read_text(encoding="utf-8")


def document(title: str, body: str, *, css: Sequence[str], scripts: Sequence[str] = ()) -> str:
    """Return a whole page that asks nothing of any network."""
    style = "\n".join(asset(name) for name in css)
    code = "\n".join(f"<script>{asset(name)}</script>" for name in scripts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data: blob:; '
        "style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\n"
        f"<title>{escape(title)}</title>\n<style>{style}</style></head>\n<body>\n{body}\n{code}\n</body></html>\n"
    )
