"""The slots in a checkpoint: one JSON part and its tensors for each replicate of each live trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeAlias

from torch import Tensor

from saesweep.cohort import Slot
from saesweep.engines.records import Place
from saesweep.runs import Checkpoint

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
        number: [({**slot.meta(), "place": asdict(placed[number])}, slot.tensors()) for slot in mine]
        for number, mine in slots.items()
    }
    metas, tensors = [], {}
    for number, mine in {**live, **waiting}.items():
        for replicate, (meta, named) in enumerate(mine):
            metas.append({**meta, "replicate": replicate})
            tensors.update({f"{_prefix(number, replicate)}{name}": tensor for name, tensor in named.items()})
    return metas, tensors


def saved_slots(checkpoint: Checkpoint) -> dict[int, list[SavedSlot]]:
    """Return a checkpoint's replicates by trial number, in their order."""
    found: dict[int, list[SavedSlot]] = {}
    for meta in checkpoint.state["slots"]:
        prefix = _prefix(meta["trial"], meta["replicate"])
        mine = {name.removeprefix(prefix): t for name, t in checkpoint.tensors.items() if name.startswith(prefix)}
        found.setdefault(meta["trial"], []).append((meta, mine))
    return found


def _prefix(number: int, replicate: int) -> str:
    return f"{number}.{replicate}/"
