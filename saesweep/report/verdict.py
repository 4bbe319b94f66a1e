"""What won, and by how much: the winner against each architecture's nearest finished trial."""

from __future__ import annotations

import math
from dataclasses import dataclass

from saesweep.events import Row
from saesweep.report.data import RunData

NOISE_FACTOR = 2.0
"""Differences below so many standard errors count as ties."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The winner against one other trial."""

    other: Row
    metric: str
    difference: float
    """Other minus best."""
    stderr: float
    """Of the difference, as if the two were measured on different contexts; NaN where unknown."""
    is_best_better: bool

    @property
    def is_noise(self) -> bool:
        """The evaluation cannot tell the two apart."""
        return math.isfinite(self.stderr) and abs(self.difference) < NOISE_FACTOR * self.stderr


def comparisons(run: RunData) -> list[Comparison]:
    """Return the winner against one finished trial of each architecture, and against every reference.

    With a single goal that is the architecture's best trial, by that goal. On a front there is no single best: it is the
    trial with the nearest L0 (in ratio), compared by what the SAE costs the model (delta_ce), or by explained variance
    where there is no language model. With matched L0 only trials with the winner's target are compared.
    """
    best = run.best
    if best is None:
        return []
    is_pareto = len(run.board.goals) > 1
    if is_pareto:
        metric, lower_is_better = ("delta_ce", True) if "delta_ce" in best.metrics else ("explained_variance", False)
    else:
        direction, metric = run.board.goals[0].split()[:2]
        lower_is_better = direction == "minimize"
    rivals = []
    for architecture in run.architectures:
        others = [
            row
            for row in run.complete
            if row.architecture == architecture
            and row.number != best.number
            and metric in row.metrics
            and row.target_l0 == best.target_l0  # None without matched L0
        ]
        if others:
            rivals.append(min(others, key=lambda row: _l0_ratio(row, best)) if is_pareto else others[0])
    rivals += [row for row in run.board.references if metric in row.metrics]
    found = []
    for other in rivals if metric in best.metrics else ():
        difference = other.metrics[metric] - best.metrics[metric]
        errors = [row.metrics.get(f"{metric}_stderr", math.nan) for row in (best, other)]
        found.append(
            Comparison(
                other=other,
                metric=metric,
                difference=difference,
                stderr=math.hypot(*errors),
                is_best_better=(difference > 0) == lower_is_better,
            )
        )
    return found


def _l0_ratio(row: Row, best: Row) -> float:
    here, there = row.metrics.get("l0", math.nan), best.metrics.get("l0", math.nan)
    return abs(math.log(here / there)) if here > 0 and there > 0 else math.inf
