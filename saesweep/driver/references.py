"""Published SAEs as rows of the leaderboard that trials are compared with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from saesweep.driver.ranking import costs, infeasibility
from saesweep.events import ReferenceRow, Row
from saesweep.scheduler import dominates
from saesweep.specs import ObjectiveSpec


def reference_rows(measured: Sequence[Mapping[str, Any]]) -> tuple[ReferenceRow, ...]:
    """Return the rows of published SAEs as a worker measured them, not ranked yet."""
    return tuple(_row(number, item) for number, item in enumerate(measured))


def _row(number: int, item: Mapping[str, Any]) -> ReferenceRow:
    return ReferenceRow(
        number=number,
        architecture=item["architecture"],
        sparsity=item["sparsity"],
        params={},
        lr=math.nan,
        hook=item["hook"],
        status="reference",
        tokens=0,
        total_tokens=0,
        metrics={name: math.nan if value is None else value for name, value in item["metrics"].items()},
        source=item["source"],
        d_sae=item["d_sae"],
    )


def ranked_references(
    references: Sequence[ReferenceRow], rows: Sequence[Row], objective: ObjectiveSpec
) -> tuple[ReferenceRow, ...]:
    """Return the references with the rank that each would have among the ranked trials, whose own ranks stay as they are.

    Args:
        references: As `reference_rows` returned them.
        rows: Ranked trials.
        objective: What is optimised; a reference that lacks one of its metrics, or misses a constraint, has no rank.
    """
    if not references:
        return ()
    trials = [(row.rank, costs(row.metrics, objective)) for row in rows if row.rank is not None]

    def placed(reference: ReferenceRow) -> ReferenceRow:
        cost = costs(reference.metrics, objective)
        is_feasible = infeasibility(reference.metrics, objective) == 0
        if not trials or not is_feasible or any(map(math.isnan, cost)):
            return replace(reference, rank=None, on_front=False, feasible=is_feasible)
        better = [rank for rank, other in trials if dominates(other, cost)]
        rank = 1 + (max(better, default=0) if objective.is_pareto else len(better))
        return replace(reference, rank=rank, on_front=objective.is_pareto and rank == 1, feasible=True)

    return tuple(placed(reference) for reference in references)


def reference_notes(
    references: Sequence[ReferenceRow], rows: Sequence[Row], objective: ObjectiveSpec, best: int | None
) -> list[str]:
    """Return a line for each reference that beats the exported trial in every goal."""
    winner = next((row for row in rows if row.number == best), None)
    if winner is None:
        return []
    cost = costs(winner.metrics, objective)
    goals = " and ".join(goal.metric for goal in objective.goals)
    return [
        f"reference {row.source} is better in {goals} than trial {winner.number}, which best/ holds"
        for row in references
        if row.rank is not None and dominates(costs(row.metrics, objective), cost)
    ]
