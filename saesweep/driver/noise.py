"""What seeds alone do to the objective, and which ranks that leaves undecided."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from saesweep.driver.ranking import costs
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


def bracketed(rows: Sequence[Row], objective: ObjectiveSpec) -> list[Row]:
    """Return ranked rows, best first, with ties that the noise floor cannot tell apart marked as one bracket of ranks.

    A bracket opens with the best trial not yet in one, and holds every trial within two standard errors of the
    difference of two means from it. Ranks themselves stay: they order, brackets judge. One goal only; with matched L0 the
    table of the best at each L0 has the ties.
    """
    floor = (
        None if objective.is_pareto or objective.matched is not None else noise_floor(rows, objective.goals[0].metric)
    )
    if floor is None:
        return list(rows)
    order = [row for row in rows if row.rank is not None]
    bracket: dict[int, tuple[int, int]] = {}
    start = 0
    while start < len(order):
        margin = _SIGMAS * floor * math.sqrt(2 / order[start].replicates)
        best = costs(order[start].metrics, objective)[0]
        end = start
        while end + 1 < len(order) and costs(order[end + 1].metrics, objective)[0] - best <= margin:
            end += 1
        bracket.update({row.number: (start + 1, end + 1) for row in order[start : end + 1]})
        start = end + 1
    none = (None, None)
    return [
        replace(row, tied_from_rank=first, tied_to_rank=last)
        for row, (first, last) in ((row, bracket.get(row.number, none)) for row in rows)
    ]


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
            f"trials {trials} cannot be told apart at this noise; the first is exported. search.confirm decides"
        )
    return notes
