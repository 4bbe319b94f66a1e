"""The requests that a worker has answered since its last checkpoints: another worker in its place repeats them from there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from saesweep.engines.records import BlockRequest
from saesweep.runs import JsonLines


class Journal:
    """A log of block requests, one JSON line each.

    Args:
        file: Where it lies.
    """

    def __init__(self, file: Path) -> None:
        self._log = JsonLines(file)
        self._last = max((line["number"] for line in self._log), default=0)

    def add(self, request: BlockRequest) -> None:
        """Note a request before it is carried out; what was noted of it and of later ones no longer holds.

        The driver has gone back further than the worker where there is a later one.
        """
        if self._last >= request.number:
            self._log.keep(lambda line: line["number"] < request.number)
        # A checkpoint is not written again where a request is repeated: the driver's part of it may be large.
        self._log.append(json.loads(replace(request, save=None).to_json()))
        self._last = request.number

    def last_after(self, block: int) -> int:
        """Return the last block that can be repeated after a checkpoint; that of the checkpoint where none can be."""
        known = {line["number"] for line in self._log}
        while block + 1 in known:
            block += 1
        return block

    def between(self, first: int, last: int) -> Iterator[BlockRequest]:
        """Yield the requests with these numbers, both included.

        Raises:
            ValueError: One is missing.
        """
        if first > last:
            return
        known = {line["number"]: line for line in self._log}
        for number in range(first, last + 1):
            if number not in known:
                raise ValueError(f"block {last + 1} is asked for after block {first - 1}")
            yield BlockRequest.from_json(json.dumps(known[number]))

    def forget(self, before: int) -> None:
        """Drop the requests with smaller numbers: no checkpoint that is kept comes before them."""
        self._log.keep(lambda line: line["number"] >= before)
