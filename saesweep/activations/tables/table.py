"""A dataset's rows, read a column at a time: in any order, or as a stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Unreadable:
    """In the place of a cell: its row cannot be read."""

    reason: str
    """Which row, and what is wrong with it."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """An opened dataset."""

    first: Mapping[str, Any]
    """Its first readable row, by column."""
    size: int | None
    """Number of rows; None for a stream."""
    iterate: Callable[[int, str], Iterator[Any]]
    """The cells of a column, from a row on; `Unreadable` where the row cannot be read."""
    read: Callable[[Sequence[int], str], list[Any]] | None
    """The cells of a column at these rows, likewise; None for a stream."""
    notes: tuple[str, ...] = ()
    """What the user should know about how it was opened."""


def random_access(
    *,
    first: Mapping[str, Any],
    size: int,
    read: Callable[[Sequence[int], str], list[Any]],
    notes: tuple[str, ...] = (),
    block_rows: int = 1000,
) -> Table:
    """Return a table whose rows can be read in any order."""

    def iterate(start: int, column: str) -> Iterator[Any]:
        for begin in range(start, size, block_rows):
            yield from read(range(begin, min(begin + block_rows, size)), column)

    return Table(first=first, size=size, iterate=iterate, read=read, notes=notes)
