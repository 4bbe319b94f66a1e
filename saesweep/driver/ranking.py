"""What trials are ranked by: their costs and the limits they miss; the winner, and the knee of a front."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from saesweep.events import Row
from saesweep.specs import LOG_METRICS, ObjectiveSpec
from saesweep.status import is_live

ALIVE = "l0_above_0"
"""Name of the constraint that every trial has: of an SAE in which no latent ever fires nothing is left to compare."""


def costs(metrics: Mapping[str, float], objective: ObjectiveSpec) -> tuple[float, ...]:
    """Return one number per goal, all to be minimised; NaN where a metric is missing."""
    return tuple(goal.sign * metrics.get(goal.metric, math.nan) for goal in objective.goals)


def natural_values(costs: Sequence[float], objective: ObjectiveSpec) -> list[float]:
    """Return the goals' metrics as they are, from `costs`."""
    return [goal.sign * c for c, goal in zip(costs, objective.goals, strict=True)]


def violations(metrics: Mapping[str, float], objective: ObjectiveSpec) -> dict[str, float]:
    """Return how far each constraint is missed, relative to its bound; 0 or less is kept.

    Beside those of the file there is one that all trials have: a dead SAE, with L0 0, is never feasible.
    """
    found: dict[str, float] = {ALIVE: 1.0} if metrics.get("l0") == 0 else {}
    for name, bound in objective.subject_to.items():
        value = metrics.get(name, math.nan)
        if bound.max is not None:
            found[f"{name}_max"] = _excess(value, bound.max)
        if bound.min is not None:
            found[f"{name}_min"] = _excess(-value, -bound.min)
    return found


def _excess(value: float, limit: float) -> float:
    return math.inf if math.isnan(value) else (value - limit) / max(abs(limit), 1e-12)


def infeasibility(metrics: Mapping[str, float], objective: ObjectiveSpec) -> float:
    """Return the sum of all missed constraints; 0 for a feasible trial."""
    return sum(max(0.0, v) for v in violations(metrics, objective).values())


def knee(candidates: Mapping[int, Sequence[float]], objective: ObjectiveSpec) -> int:
    """Return the front's point nearest the ideal."""
    return by_knee_distance(candidates, objective)[0]


def by_knee_distance(candidates: Mapping[int, Sequence[float]], objective: ObjectiveSpec) -> list[int]:
    """Return a front by distance from the ideal, each cost scaled to 0..1 over the front.

    Costs that span decades are taken in logarithm, a whole column of them or none: one value at or below 0 (a delta_ce by
    chance) leaves its column as it is.
    """
    columns = zip(*candidates.values(), strict=True)
    in_log = [
        goal.metric in LOG_METRICS and goal.direction == "minimize" and min(column) > 0
        for column, goal in zip(columns, objective.goals, strict=True)
    ]
    points = {
        n: [math.log(c) if log else c for c, log in zip(cost, in_log, strict=True)] for n, cost in candidates.items()
    }
    low = [min(column) for column in zip(*points.values(), strict=True)]
    high = [max(column) for column in zip(*points.values(), strict=True)]

    def distance(n: int) -> float:
        return math.hypot(
            *((p - lo) / (hi - lo) if hi > lo else 0.0 for p, lo, hi in zip(points[n], low, high, strict=True))
        )

    return sorted(points, key=lambda n: (distance(n), n))


def _advice(missed: Mapping[str, float], metrics: Mapping[str, float]) -> str:
    """Return advice on a search in which every finished trial missed a limit; `missed` and `metrics` are the nearest trial's."""
    if ALIVE in missed and math.isnan(metrics.get("explained_variance", 0.0)):
        return "the activations of its hook do not vary, so that there is nothing to learn: choose another hook"
    if ALIVE in missed:
        return "search weaker penalties (a lower sae.l1_coefficient or sae.l0_coefficient) or a lower lr"
    if "l0_max" in missed:
        return "let the space reach sparser settings (a lower sae.k, a higher sparsity coefficient), or relax the limit"
    if "l0_min" in missed:
        return "let the space reach denser settings (a higher sae.k, a lower sparsity coefficient), or relax the limit"
    return "train longer, widen the space, or relax the limit"


def best_so_far(rows: Sequence[Row], objective: ObjectiveSpec) -> int | None:
    """Return the trial that would be exported if the run ended now; None while no trial has finished.

    With matched L0 each target has a best of its own, which other lines name.
    """
    if objective.matched is not None or not any(row.status == "complete" for row in rows):
        return None
    return winner(rows, objective)[0]


def winner(rows: Sequence[Row], objective: ObjectiveSpec) -> tuple[int | None, list[str]]:
    """Return the trial to export as best, and what to say about the choice."""
    finished = [row for row in rows if row.status == "complete"]
    if not finished:
        why = "" if any(is_live(row.status) for row in rows) else ": every one was pruned or failed"
        return None, [f"no trial finished{why}; nothing is exported"]
    first = [row for row in finished if row.rank == 1]
    if not first:
        if any(infeasibility(row.metrics, objective) > 0 for row in finished):
            nearest = min(finished, key=lambda row: (infeasibility(row.metrics, objective), row.number))
            missed = {n: v for n, v in violations(nearest.metrics, objective).items() if v > 0}
            violated = ", ".join(
                "no latent ever fires" if name == ALIVE else f"misses {name} by {100 * v:.3g}%"
                for name, v in missed.items()
            )
            return nearest.number, [
                f"no feasible trial: best/ holds the least infeasible one, trial {nearest.number} ({violated}); "
                f"{_advice(missed, nearest.metrics)}"
            ]
        return None, ["no finished trial has a value of the objective; nothing is exported"]
    if objective.matched is not None:
        middle = objective.matched.middle
        at_middle = [row for row in first if row.target_l0 == middle] or first
        return at_middle[0].number, []
    if not objective.is_pareto or len(rows) == 1:
        return first[0].number, []
    number = knee({row.number: costs(row.metrics, objective) for row in first}, objective)
    return number, [f"best/ holds the knee of the Pareto front of {len(first)}, trial {number}; pareto/ holds them all"]
