"""Documents, wherever they come from: random access (by index) or a stream (in order)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from saesweep.activations.columns import (
    Conversation,
    Document,
    as_conversation,
    as_text,
    as_token_ids,
    check_token_ids,
    find_column,
)
from saesweep.activations.rows import MASK_COLUMN, hide
from saesweep.activations.tables import Selection, Unreadable, open_table
from saesweep.activations.unreadable import UnreadableRow, UnreadableRows

if TYPE_CHECKING:
    from saesweep.specs.base_run import BaseRun


BASE, HELD_OUT = "base.", "evaluation.dataset."
"""Where the file says which dataset is read: to train on, or for the held-out parts alone."""


@dataclass(frozen=True, kw_only=True)
class MapDocuments:
    """Documents that can be read in any order."""

    name: str
    """The `dataset_path`, for messages."""
    size: int
    """Number of documents."""
    read: Callable[[Sequence[int]], list[Document]]
    """Documents at these indices, in this order."""
    is_tokenized: bool
    """Whether documents are token ids."""
    column: str | None = None
    """Column of the dataset that holds them."""
    unreadable: UnreadableRows = field(default_factory=lambda: UnreadableRows("the data"))
    """Rows that could not be used; they give empty documents."""
    notes: tuple[str, ...] = ()
    """What the user should know about how they were opened."""


@dataclass(frozen=True, kw_only=True)
class StreamDocuments:
    """Documents that come in one order."""

    name: str
    """The `dataset_path`, for messages."""
    iterate: Callable[[int], Iterator[Document]]
    """All documents from this position on."""
    is_tokenized: bool
    """Whether documents are token ids."""
    column: str | None = None
    """Column of the dataset that holds them."""
    unreadable: UnreadableRows = field(default_factory=lambda: UnreadableRows("the data"))
    """Rows that could not be used; they give empty documents."""
    notes: tuple[str, ...] = ()
    """What the user should know about how they were opened."""


Documents = MapDocuments | StreamDocuments


def open_documents(run: BaseRun, *, n_token_ids: int | None = None, block: str = BASE) -> Documents:
    """Open `run.dataset_path`: `builtin:python-docs`, a local file, folder or glob, or a Hub dataset.

    A row that cannot be used is an empty document, and counted. Of token ids, that is one shorter than a context too, and
    one with an id that the model has no embedding for.

    Args:
        run: The base run; its data fields are read.
        n_token_ids: Rows of the model's token embedding; None where no model is going to read the ids.
        block: What the dataset's fields are named after in messages: `BASE`, `HELD_OUT`, or an entry of `base.datasets`.

    Raises:
        UserError: It does not exist, cannot be read, is empty or has no column with text or tokens.
    """
    name, table = run.dataset_path, open_table(Selection.of_run(run, block))
    column, is_tokenized = find_column(run, table.first, block)
    convert: Callable[[str, Any], Document] = as_text
    if run.use_chat_formatting:
        convert = as_conversation
    elif is_tokenized:
        convert = as_token_ids
    unreadable = UnreadableRows(name, f"{block}dataset_path")
    nothing: Document = "" if convert is as_text else []

    masked = column == "input_ids" and is_tokenized and MASK_COLUMN in table.first
    notes = table.notes
    if masked:
        notes += (
            f"{block}dataset_path: positions of {name} with {MASK_COLUMN} 0 are left out of training and of losses; "
            "the model still reads them, so padding belongs at the end of a row",
        )

    def document(row: int, cell: Any, mask: Any = None) -> Document:
        try:
            found = convert(column, cell)
            if convert is as_token_ids and isinstance(found, list):
                check_token_ids(found, run.context_size, n_token_ids)
                found = hide(found, mask) if masked and found else found
        except UnreadableRow as error:
            unreadable.add(row, str(error) if isinstance(cell, Unreadable) else f"row {row}: {error}")
            return nothing
        unreadable.usable()
        return replace(found, row=row) if isinstance(found, Conversation) else found

    if table.read is None:

        def iterate(start: int) -> Iterator[Document]:
            cells = table.iterate(start, column)
            masks = table.iterate(start, MASK_COLUMN) if masked else itertools.repeat(None)
            for row, (cell, mask) in enumerate(zip(cells, masks, strict=False), start):
                yield document(row, cell, mask)

        return StreamDocuments(
            name=name,
            iterate=iterate,
            is_tokenized=is_tokenized,
            column=column,
            unreadable=unreadable,
            notes=notes,
        )
    assert table.size is not None
    cells = table.read

    def read(indices: Sequence[int]) -> list[Document]:
        masks = cells(indices, MASK_COLUMN) if masked else [None] * len(indices)
        return [
            document(int(row), cell, mask)
            for row, cell, mask in zip(indices, cells(indices, column), masks, strict=True)
        ]

    return MapDocuments(
        name=name,
        size=table.size,
        read=read,
        is_tokenized=is_tokenized,
        column=column,
        unreadable=unreadable,
        notes=notes,
    )
