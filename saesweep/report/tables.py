"""Tables of the pages, as plain data for their templates."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Cell:
    """One cell."""

    text: str
    swatch: str = ""
    """The architecture whose mark stands before the text."""


@dataclass(frozen=True)
class TableRow:
    """One row."""

    cells: Sequence[Cell]
    css_class: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table; numbers are right-aligned, text left, and long text wraps."""

    heads: Sequence[str]
    rows: Sequence[TableRow]
    text_columns: Collection[int]
    wrapped_columns: Collection[int] = field(default_factory=frozenset)


def row_of(cells: Sequence[str], css_class: str = "", swatches: Mapping[int, str] | None = None) -> TableRow:
    """Return a row of plain texts; `swatches` names the architecture of the columns that show its mark."""
    marks = swatches or {}
    return TableRow([Cell(text, marks.get(i, "")) for i, text in enumerate(cells)], css_class)
