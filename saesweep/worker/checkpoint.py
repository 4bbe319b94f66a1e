"""What a worker keeps so that it can be resumed: the slots in a checkpoint, and the requests answered since the last checkpoints.

A slot is one JSON part and its tensors for each replicate of each live trial. Another worker in the place of a lost one repeats the requests.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeAlias

from torch import Tensor

from saesweep.cohort import Slot
from saesweep.engines.records import BlockRequest, Place
from saesweep.runs import Checkpoint, SealedLines

SavedSlot: TypeAlias = tuple[dict[str, Any], dict[str, Tensor]]
"""What `Slot.meta` and `Slot.tensors` returned."""


def slots_to_save(
    slots: Mapping[int, Sequence[Slot]],
    waiting: Mapping[int, Sequence[SavedSlot]],
    placed: Mapping[int, Place],
) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """Return the JSON parts and the tensors by name.

    Args:
        slots: The replicates of each trial in the cohort, by trial number.
        waiting: Trials restored from a checkpoint that are not in a slot again yet.
        placed: How each trial in the cohort was placed.
    """
    live = {
        number: [({**slot.meta(), "place": asdict(placed[number])}, slot.tensors()) for slot in replicates]
        for number, replicates in slots.items()
    }
    metas, tensors = [], {}
    for number, replicates in {**live, **waiting}.items():
        for replicate, (meta, named) in enumerate(replicates):
            metas.append({**meta, "replicate": replicate})
            tensors.update({f"{_prefix(number, replicate)}{name}": tensor for name, tensor in named.items()})
    return metas, tensors


def saved_slots(checkpoint: Checkpoint) -> dict[int, list[SavedSlot]]:
    """Return a checkpoint's replicates by trial number, in their order."""
    found: dict[int, list[SavedSlot]] = {}
    for meta in checkpoint.state["slots"]:
        prefix = _prefix(meta["trial"], meta["replicate"])
        own_tensors = {
            name.removeprefix(prefix): t for name, t in checkpoint.tensors.items() if name.startswith(prefix)
        }
        found.setdefault(meta["trial"], []).append((meta, own_tensors))
    return found


def _prefix(number: int, replicate: int) -> str:
    return f"{number}.{replicate}/"


class Journal:
    """A log of block requests, one JSON line each.

    Args:
        file: Where it lies.
    """

    def __init__(self, file: Path) -> None:
        self._log = SealedLines(file)
        self._damaged_at = self._log.cut_damaged()
        self._last = max((line["number"] for line in self._log), default=0)

    def damaged(self) -> tuple[str, ...]:
        """Return what to say where a line was damaged: without it those after it cannot be repeated, and train again."""
        if self._damaged_at is None:
            return ()
        return (f"{self._log.path}:{self._damaged_at}: damaged; what was asked for from there on trains again",)

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
