"""The cells of one column of a dataset, in order, from any position."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from saesweep.activations.columns import as_conversation, as_text, check_column
from saesweep.activations.documents import Document
from saesweep.activations.tables import Selection, Unreadable, open_table
from saesweep.activations.unreadable import UnreadableRow, UnreadableRows
from saesweep.specs.pretokenize import PretokenizeSpec

_SAMPLE_ROWS = 256


@dataclass(frozen=True, kw_only=True)
class Cells:
    """A column of a dataset."""

    size: int | None
    """Number of rows; None for a stream."""
    iterate: Callable[[int], Iterator[Any]]
    """The cells from this row on: text, a conversation, None, or `Unreadable`."""
    notes: tuple[str, ...]
    """What the user should know about how it was opened."""


def open_cells(spec: PretokenizeSpec) -> Cells:
    """Open the dataset's split and column, and look at its first rows.

    Raises:
        UserError: It cannot be had, has no such column, or most of its rows cannot be used.
    """
    table = open_table(Selection.of_pretokenize(spec))
    column = spec.column_name
    check_column("", spec.dataset_path, column, table.first)
    unreadable, seen = UnreadableRows(spec.dataset_path, "dataset_path"), 0
    for row, cell in enumerate(islice(table.iterate(0, column), _SAMPLE_ROWS)):
        seen += 1
        try:
            document_of(spec, cell)
        except UnreadableRow as error:
            unreadable.add(row, str(error) if isinstance(cell, Unreadable) else f"row {row}: {error}")
    unreadable.check_sample(seen)
    return Cells(size=table.size, iterate=lambda start: table.iterate(start, column), notes=table.notes)


def document_of(spec: PretokenizeSpec, cell: Any) -> Document:
    """Return a cell as a document.

    Raises:
        UnreadableRow: It is neither text nor, with chat formatting, a conversation.
    """
    return as_conversation(spec.column_name, cell) if spec.use_chat_formatting else as_text(spec.column_name, cell)
