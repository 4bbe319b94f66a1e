"""What seeds alone do to the objective, and which ranks that leaves undecided."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence

from saesweep.events import Row
from saesweep.specs import ObjectiveSpec

_SIGMAS = 2.0


class NoiseFloor:
    """The standard deviation of a metric between seeds, pooled over the finished trials as they come.

    Baselines are asked for, not selected, so their spread is the honest one; where none has finished, all finished
    trials count.

    Args:
        metric: The metric.
    """

    def __init__(self, metric: str) -> None:
        self._metric = metric
        self._sums = {True: (0, 0.0), False: (0, 0.0)}
        """Number of trials and sum of their squares: of the baselines, and of all."""
        self._has_baseline = False

    def add(self, row: Row) -> None:
        """Count a trial that has ended."""
        if row.status != "complete" or self._metric not in row.spread:
            return
        spread = row.spread[self._metric]
        self._has_baseline = self._has_baseline or row.is_baseline
        for of_baselines in {row.is_baseline, False}:
            if math.isfinite(spread):
                n, squares = self._sums[of_baselines]
                self._sums[of_baselines] = n + 1, squares + spread * spread

    @property
    def value(self) -> float | None:
        """The noise floor; None without replicates."""
        n, squares = self._sums[self._has_baseline]
        return math.sqrt(squares / n) if n else None


def noise_floor(rows: Sequence[Row], metric: str) -> float | None:
    """Return the noise floor of some trials; None without replicates."""
    floor = NoiseFloor(metric)
    for row in rows:
        floor.add(row)
    return floor.value


def bracket_end(costs: Sequence[float], start: int, replicates: int, floor: float) -> int:
    """Return the place after the bracket that opens at a place: ties that the noise floor leaves.

    A bracket opens with the best trial not yet in one, and holds every trial within two standard errors of the
    difference of two means from it. Ranks themselves stay: they order, brackets judge.

    Args:
        costs: Of the ranked trials in the one goal, best first.
        start: Where the bracket opens.
        replicates: SAEs of the trial there.
        floor: The noise floor.
    """
    margin = _SIGMAS * floor * math.sqrt(2 / replicates)
    return bisect_right(costs, margin, lo=start + 1, key=lambda cost: cost - costs[start])


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
