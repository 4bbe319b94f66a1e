"""Append-only logs of JSON lines that survive a torn last write."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from saesweep.atomic import finite, write_bytes
from saesweep.errors import UserError

_PIECE = 4096
_BREAK = ord("\n")


class JsonLines:
    """One append-only log.

    Args:
        path: The file; made when the first line is written. A torn last line is cut off on opening.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.exists():
            _cut_torn_line(path)

    def append(self, record: Any) -> None:
        """Add one line; NaN and infinities become null."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(finite(record)) + "\n")

    def __iter__(self) -> Iterator[Any]:
        if self.path.exists():
            for line in self.path.read_bytes().splitlines():
                yield json.loads(line)

    def keep(self, wanted: Callable[[Any], bool]) -> None:
        """Drop the lines that are not wanted: those written after the checkpoint that a run resumes from.

        Raises:
            UserError: A line is damaged.
        """
        if not self.path.exists():
            return
        lines = []
        found = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        for number, line in enumerate(found, start=1):
            try:
                lines += [line] * wanted(json.loads(line))
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise UserError(
                    f"{self.path}:{number}: damaged ({type(error).__name__}: {error}); remove this line to resume"
                ) from None
        if len(lines) < len(found):
            write_bytes(self.path, "".join(line + "\n" for line in lines).encode())

    def drop_last(self, unwanted: Callable[[Any], bool]) -> None:
        """Drop lines from the end for as long as they are not wanted; only as much of the file is read.

        Raises:
            UserError: One of the lines that are read is damaged.
        """
        if not self.path.exists():
            return
        with self.path.open("rb+") as file:
            size = end = file.seek(0, os.SEEK_END)
            for start, line in _lines_from_the_end(file, end):
                try:
                    if not unwanted(json.loads(line)):
                        break
                except (ValueError, KeyError, TypeError, RecursionError) as error:
                    raise UserError(
                        f"{self.path}: the line at byte {start} is damaged ({type(error).__name__}: {error}); "
                        "remove this line to resume"
                    ) from None
                end = start
            if end < size:
                file.truncate(end)


def _lines_from_the_end(file: BinaryIO, end: int) -> Iterator[tuple[int, bytes]]:
    """Yield (place of its first byte, line) of each whole line before a place, the last one first."""
    held, start = b"", end
    while start:
        piece = min(max(_PIECE, len(held)), start)
        start -= piece
        file.seek(start)
        held = file.read(piece) + held
        # The first line may have begun before this piece.
        *places, _ = [0, *(i + 1 for i, byte in enumerate(held) if byte == _BREAK)]
        for place in reversed(places if start == 0 else places[1:]):
            yield start + place, held[place:]
            held = held[:place]


def _cut_torn_line(path: Path) -> None:
    """Cut off what follows the last line break; only the end of the file is read."""
    with path.open("rb+") as file:
        size = end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - (1 if end == size else _PIECE))
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            if found >= 0:
                end = start + found + 1
                break
            end = start
        if end < size:
            file.truncate(end)
