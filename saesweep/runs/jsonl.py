"""Append-only logs of JSON lines that survive a torn last write."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from saesweep.errors import UserError
from saesweep.runs.atomic import finite, write_bytes


class JsonLines:
    """One append-only log.

    Args:
        path: The file; made when the first line is written. A torn last line is cut off on opening.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.exists():
            data = path.read_bytes()
            whole = data[: data.rfind(b"\n") + 1]
            if whole != data:
                write_bytes(path, whole)

    def append(self, record: Any) -> None:
        """Add one line; NaN and infinities become null."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(finite(record)) + "\n")

    def __iter__(self) -> Iterator[Any]:
        if self.path.exists():
            for line in self.path.read_text().splitlines():
                yield json.loads(line)

    def keep(self, wanted: Callable[[Any], bool]) -> None:
        """Drop the lines that are not wanted: those written after the checkpoint that a run goes on from.

        Raises:
            UserError: A line is damaged.
        """
        if not self.path.exists():
            return
        lines = []
        for number, line in enumerate(self.path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
            try:
                lines += [line] * wanted(json.loads(line))
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise UserError(
                    f"{self.path}:{number}: damaged ({type(error).__name__}: {error}); remove this line to go on"
                ) from None
        write_bytes(self.path, "".join(line + "\n" for line in lines).encode())
