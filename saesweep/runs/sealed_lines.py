"""Records that hold their own checksum: what a run repeats is what was noted, or known to be damaged."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from saesweep.atomic import finite
from saesweep.errors import UserError
from saesweep.runs.jsonl import JsonLines

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
