"""Text and JSON Lines files, read by position: neither held in memory nor copied to a cache."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saesweep.activations.tables.local_files import LocalData
from saesweep.activations.tables.selection import Selection, rows_of_split
from saesweep.activations.tables.table import Table, Unreadable, random_access

TEXT = "text"
"""The one column of a text file."""
_ROWS_LOOKED_AT = 16
_BLOCK_BYTES = 1 << 24


def open_text_lines(selection: Selection, local: LocalData) -> Table:
    """Return every line of UTF-8 files, in the order of the files; blank lines are empty cells.

    Raises:
        UserError: The split does not exist, or holds nothing but blank lines.
    """
    return _open(selection, local, _parse_text)


def open_json_lines(selection: Selection, local: LocalData) -> Table:
    """Return every line of JSON Lines files as a row, in the order of the files; blank lines are empty cells.

    Raises:
        UserError: The split does not exist, is empty, or no line of it is a JSON object.
    """
    return _open(selection, local, _parse_json)


class _Lines:
    """The lines of files, numbered one after the other."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files
        self._bytes = [
            np.memmap(file, dtype=np.uint8, mode="r") if file.stat().st_size else np.empty(0, dtype=np.uint8)
            for file in files
        ]
        self._starts = [_line_starts(file) for file in files]
        self.counts = [len(starts) - 1 for starts in self._starts]
        self._first_of_file = np.cumsum([0, *self.counts])

    def __getitem__(self, index: int) -> bytes:
        number, line = self._locate(index)
        start, end = self._starts[number][line : line + 2]
        return self._bytes[number][start:end].tobytes()

    def where(self, index: int) -> str:
        """Name a line."""
        number, line = self._locate(index)
        return f"line {line + 1} of {self._files[number]}"

    def _locate(self, index: int) -> tuple[int, int]:
        number = int(np.searchsorted(self._first_of_file, index, side="right")) - 1
        return number, index - int(self._first_of_file[number])


def _open(selection: Selection, local: LocalData, parse: Callable[[bytes], dict[str, Any]]) -> Table:
    by_split = local.chosen(selection)
    lines = _Lines([file for files in by_split.values() for file in files])
    counts = iter(lines.counts)
    chosen = rows_of_split(selection, {name: sum(islice(counts, len(files))) for name, files in by_split.items()})

    def row(number: int) -> dict[str, Any] | Unreadable | None:
        raw = lines[number]
        if not raw.strip():
            return None
        try:
            return parse(raw)
        except UnicodeDecodeError as error:
            return Unreadable(f"{lines.where(number)} is not UTF-8 ({error.reason})")
        except ValueError as error:
            return Unreadable(f"{lines.where(number)} is no JSON object ({error})")

    def read(indices: Sequence[int], column: str) -> list[Any]:
        rows = [row(int(chosen[index])) for index in indices]
        return [each if isinstance(each, Unreadable) else "" if each is None else each.get(column) for each in rows]

    return random_access(
        first=_first_row(selection, row, chosen),
        size=len(chosen),
        read=read,
        notes=local.left_out(selection),
    )


def _first_row(
    selection: Selection, row: Callable[[int], dict[str, Any] | Unreadable | None], chosen: NDArray[np.int64]
) -> dict[str, Any]:
    """Return the first row, with the columns that only rows after it have: lines need not have the same keys."""
    first: dict[str, Any] | None = None
    broken: Unreadable | None = None
    for index, number in enumerate(chosen.tolist()):
        if first is not None and index >= _ROWS_LOOKED_AT:
            break
        found = row(number)
        if isinstance(found, dict):
            known = first or {}
            first = known | {name: cell for name, cell in found.items() if known.get(name) is None}
        broken = broken or (found if isinstance(found, Unreadable) else None)
    if first is not None:
        return first
    if broken is not None:
        raise selection.mistake("dataset_path", f"no row of {selection.path} can be read; {broken.reason}")
    raise selection.empty()


def _parse_text(raw: bytes) -> dict[str, Any]:
    return {TEXT: raw.decode("utf-8").rstrip("\r\n")}


def _parse_json(raw: bytes) -> dict[str, Any]:
    row = json.loads(raw.decode("utf-8-sig"))
    if not isinstance(row, dict):
        raise ValueError(f"it holds a {type(row).__name__}")
    return row


def _line_starts(file: Path) -> NDArray[np.int64]:
    """Byte offsets of the lines, and the file's size as the last entry."""
    ends = [np.zeros(1, dtype=np.int64)]
    position = 0
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            ends.append(np.flatnonzero(np.frombuffer(block, dtype=np.uint8) == ord("\n")) + position + 1)
            position += len(block)
    starts = np.concatenate(ends)
    return starts if starts[-1] == position else np.append(starts, position)
