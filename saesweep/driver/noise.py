"""What seeds alone do to the objective, and which ranks that leaves undecided."""

from __future__ import annotations

import math
from collections.abc import Sequence

from saesweep.events import Row
from saesweep.specs import ObjectiveSpec

_SIGMAS = 2.0


def noise_floor(rows: Sequence[Row], metric: str) -> float | None:
    """Return the standard deviation of a metric between seeds, pooled over trials; None without replicates.

    Baselines are asked for, not selected, so their spread is the honest one; where none has finished, all finished
    trials count.
    """
    spreads = [
        (row.is_baseline, row.spread[metric]) for row in rows if row.status == "complete" and metric in row.spread
    ]
    chosen = [s for is_baseline, s in spreads if is_baseline] or [s for _, s in spreads]
    finite = [s for s in chosen if math.isfinite(s)]
    return math.sqrt(sum(s * s for s in finite) / len(finite)) if finite else None


def brackets(costs: Sequence[float], replicates: Sequence[int], floor: float) -> list[tuple[int, int]]:
    """Return the first and last rank of the bracket that each ranked trial is in: ties that the noise floor leaves.

    A bracket opens with the best trial not yet in one, and holds every trial within two standard errors of the
    difference of two means from it. Ranks themselves stay: they order, brackets judge.

    Args:
        costs: Of the ranked trials in the one goal, best first.
        replicates: SAEs of each.
        floor: The noise floor.
    """
    found: list[tuple[int, int]] = []
    while len(found) < len(costs):
        start = end = len(found)
        margin = _SIGMAS * floor * math.sqrt(2 / replicates[start])
        while end + 1 < len(costs) and costs[end + 1] - costs[start] <= margin:
            end += 1
        found += [(start + 1, end + 1)] * (end + 1 - start)
    return found


def noise_notes(rows: Sequence[Row], objective: ObjectiveSpec) -> list[str]:
    """Return what the replicates say about the ranking, in words."""
    floors = {goal.metric: noise_floor(rows, goal.metric) for goal in objective.goals}
    known = {metric: floor for metric, floor in floors.items() if floor is not None}
    if not known:
        return []
    text = ", ".join(f"{metric} {floor:.3g}" for metric, floor in known.items())
    notes = [f"noise floor (standard deviation between seeds): {text}"]
    first = [row.number for row in rows if row.tied_from_rank == 1]
    if len(first) > 1:
        trials = ", ".join(map(str, first))
        notes.append(
            f"trials {trials} are statistically tied at this noise; the first is exported. search.confirm decides"
        )
    return notes
