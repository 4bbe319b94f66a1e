"""Append-only logs of JSON lines that survive a torn last write, and records in them that hold their own checksum."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
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

    def keep(self, is_kept: Callable[[Any], bool]) -> None:
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
                lines += [line] * is_kept(json.loads(line))
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


_SUM = "sum"


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record with its checksum; NaN and infinities become null."""
    plain: dict[str, Any] = finite(record)
    return {**plain, _SUM: _checksum(plain)}


def unsealed(record: Any) -> dict[str, Any]:
    """Return the record that `sealed` took.

    Raises:
        ValueError: It is another one.
    """
    if not isinstance(record, dict):
        raise ValueError("not a JSON object")
    kept = {name: value for name, value in record.items() if name != _SUM}
    if record.get(_SUM) != _checksum(kept):
        raise ValueError("it does not match its checksum")
    return kept


def _checksum(record: Mapping[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(record, sort_keys=True).encode()):08x}"


class SealedLines(JsonLines):
    """A log of such records."""

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one line."""
        super().append(sealed(record))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the records.

        Raises:
            UserError: A line is damaged: what follows it cannot be repeated without it.
        """
        for number, record in self._read():
            if record is None:
                raise UserError(f"{self.path}:{number}: damaged; start a new run with --run-dir")
            yield record

    def cut_damaged(self) -> int | None:
        """Cut the log off before its first damaged line; return the number of that line, None where there is none."""
        for number, record in self._read():
            if record is None:
                lines = self.path.read_bytes().splitlines(keepends=True)
                with self.path.open("rb+") as file:
                    file.truncate(sum(map(len, lines[: number - 1])))
                return number
        return None

    def _read(self) -> Iterator[tuple[int, dict[str, Any] | None]]:
        """Yield the number of each line and its record, None for a damaged one."""
        for number, line in enumerate(self.path.read_bytes().splitlines() if self.path.exists() else (), start=1):
            try:
                yield number, unsealed(json.loads(line))
            except (ValueError, RecursionError):
                yield number, None
