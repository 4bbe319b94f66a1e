"""Exports SAEs as they are now and measures them on held-out activations."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from saesweep.cohort import Cohort, Slot
from saesweep.evaluation import HeldOutEvaluator
from saesweep.saes import ExportedSAE


@dataclass(frozen=True)
class Measured:
    """One SAE in its exported form, and what it scored."""

    sae: ExportedSAE
    metrics: dict[str, float]
    frequency_F: Tensor
    dead: int


def measure_slots(
    cohort: Cohort, slots: Sequence[Slot], evaluator: HeldOutEvaluator, *, with_model: Mapping[int, bool]
) -> dict[int, Measured]:
    """Return each slot's exported SAE and metrics by trial number; SAEs of one hook are measured together.

    Args:
        cohort: Where the slots train.
        slots: Which of them to measure.
        evaluator: The held-out part to measure on.
        with_model: By trial number, whether to run the language model's head too.
    """
    groups: dict[tuple[str, bool], list[Slot]] = defaultdict(list)
    for slot in slots:
        groups[slot.run.hook_name, with_model[slot.trial]].append(slot)
    found: dict[int, Measured] = {}
    for (hook, use_model), members in groups.items():
        saes = [cohort.export(slot) for slot in members]
        for slot, sae, metrics in zip(members, saes, evaluator.measure(saes, hook, with_model=use_model), strict=True):
            dead = int(slot.dead_F().sum())
            found[slot.trial] = Measured(
                sae=sae,
                metrics={**metrics, "dead_fraction": dead / sae.d_sae},
                frequency_F=slot.firing.frequency_F().cpu(),
                dead=dead,
            )
    return found
