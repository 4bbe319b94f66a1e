"""What a search has taught: `saesweep leaderboard RUN --details`."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from saesweep.display.saved import Leaderboard
from saesweep.display.text import label, metric_value
from saesweep.errors import UserError
from saesweep.events import Row
from saesweep.files import read_text
from saesweep.specs import LOG_METRICS

if TYPE_CHECKING:
    from saesweep.study import Importance, Marginal

SPARKS = "▁▂▃▄▅▆▇█"


def details_lines(run_dir: Path, board: Leaderboard) -> list[str]:
    """Return the details of a run, finished or not: the best so far, importances, choices at equal L0.

    Trials of streams on other scales (another model or dataset) are kept apart: each stream has its own part.

    Args:
        run_dir: The run directory.
        board: Its leaderboard.
    """
    from saesweep.experiment import AsWritten, are_comparable, load_experiment, streams_of

    done = [row for row in board.rows if row.status == "complete"]
    if not done:
        return ["details: no trial has finished yet"]
    experiment = load_experiment(run_dir / "experiment.yaml", env=AsWritten())
    choices = tuple(dict.fromkeys(p.path for p in experiment.parameters() if p.spec.choice is not None))
    groups = {"": ending_order(run_dir, done)}
    if not are_comparable(streams_of(experiment)):
        groups = {row.stream: [other for other in groups[""] if other.stream == row.stream] for row in groups[""]}
    lines = []
    for stream, rows in groups.items():
        if stream:
            lines += ["", f"{stream}:"]
        lines += ["", *_best_lines(rows, board.goals), "", *_importance_lines(run_dir, board, rows)]
        lines += ["", *_marginal_lines(rows, board.goals, choices)]
    return lines[1:]


def ending_order(run_dir: Path, rows: Sequence[Row]) -> list[Row]:
    """Return finished trials in the order in which they ended, by the event log; by number where there is none."""
    last: dict[int, int] = {}
    file = run_dir / "events.jsonl"
    if file.exists():
        text = read_text(file, fix="restore it, or remove it: the report and --details do without")
        for index, line in enumerate(text.split("\n")[:-1]):  # what follows is torn
            if '"TrialEnded"' in line:
                try:
                    last[json.loads(line)["number"]] = index
                except (ValueError, KeyError, TypeError, RecursionError):
                    raise UserError(f"{file}:{index + 1}: damaged, this is no event; delete the line") from None
    return sorted(rows, key=lambda row: (last.get(row.number, -1), row.number))


# ---------------------------------------------------------------- best so far


def _best_lines(rows: Sequence[Row], goals: Sequence[str]) -> list[str]:
    feasible = [row for row in rows if row.feasible]
    if len(goals) == 2:
        curve = hypervolumes(feasible, goals)
        if len(curve) < 2 or curve[-1] <= 0:
            return ["front so far: too few finished trials"]
        spark = sparkline([c / curve[-1] for c in curve], 0.0, 1.0)
        last = max(i for i in range(len(curve)) if i == 0 or curve[i] > curve[i - 1])
        return [
            f"front so far  {spark}  hypervolume of the front after each of {len(curve)} finished trials, "
            f"as a share of the last; grew last with the {_ordinal(last + 1)}"
        ]
    lines = []
    for goal in goals:
        direction, metric = goal.split()[:2]
        sign = 1.0 if direction == "minimize" else -1.0
        found = [(sign * row.metrics[metric], row.number) for row in feasible if _is_finite(row, metric)]
        if not found:
            continue
        best: list[float] = []
        steps: list[str] = []
        for value, number in found:
            if not best or value < best[-1]:
                steps.append(f"{metric_value(metric, sign * value)} (trial {number})")
            best.append(min(value, best[-1]) if best else value)
        spark = sparkline(best, best[-1], best[0])
        shown = steps if len(steps) <= 5 else [*steps[:2], "…", *steps[-2:]]
        lines.append(f"best {label(metric)} so far  {spark}  over {len(best)} finished trials: {' > '.join(shown)}")
    return lines or ["best so far: no feasible trial has a value of the objective"]


def hypervolumes(rows: Sequence[Row], goals: Sequence[str]) -> list[float]:
    """Return, after each trial, the area that the front of two goals dominates, L0-like metrics in logarithm.

    The reference point is the worst value of each goal among the trials.
    """
    columns = []
    for goal in goals:
        direction, metric = goal.split()[:2]
        column = [row.metrics.get(metric, math.nan) for row in rows]
        known = [value for value in column if math.isfinite(value)]
        if metric in LOG_METRICS and known and min(known) > 0:  # a whole column or none, as where a knee is looked for
            column = [math.log(value) for value in column]
        columns.append(column if direction == "minimize" else [-value for value in column])
    points = [(x, y) for x, y in zip(*columns, strict=True) if math.isfinite(x) and math.isfinite(y)]
    if not points:
        return []
    worst = (max(x for x, _ in points), max(y for _, y in points))
    return [_area(points[: i + 1], worst) for i in range(len(points))]


def _area(points: Sequence[tuple[float, float]], worst: tuple[float, float]) -> float:
    area, lowest = 0.0, worst[1]
    for x, y in sorted(points):
        if y < lowest:
            area += (worst[0] - x) * (lowest - y)
            lowest = y
    return area


def sparkline(values: Sequence[float], low: float, high: float) -> str:
    """Return the values as a line of blocks between `low` and `high`."""
    top = len(SPARKS) - 1
    span = high - low
    return "".join(SPARKS[min(top, max(0, round((v - low) / span * top))) if span > 0 else 0] for v in values)


# ---------------------------------------------------------------- importances and choices


def _importance_lines(run_dir: Path, board: Leaderboard, rows: Sequence[Row]) -> list[str]:
    from saesweep.study import MIN_TRIALS, importances, load_plain_study

    file = run_dir / "study.db"
    if not file.exists():
        return ["importance: the run directory has no study.db"]
    study = load_plain_study(str(file), board.name)
    found = importances(study, board.goals, {row.number: row.architecture for row in rows})
    if not found:
        return ["importance: nothing that differs between the finished trials was searched"]
    lines = ["importance (PED-ANOVA: what sets the better tenth of the trials apart)"]
    lines += [f"  {_importance_text(item)}" for item in found if item.n_trials >= MIN_TRIALS]
    few = dict.fromkeys(f"{item.group} ({item.n_trials})" for item in found if item.n_trials < MIN_TRIALS)
    return lines + [f"  too few finished trials, {MIN_TRIALS} are needed: {', '.join(few)}"] * bool(few)


def _importance_text(item: Importance) -> str:
    place = f"{item.group} ({item.n_trials}), {item.goal}"
    if not item.shares:
        return f"{place}: all values are equal"
    return f"{place}: " + ", ".join(f"{path} {100 * share:.0f}%" for path, share in item.shares.items())


def _marginal_lines(rows: Sequence[Row], goals: Sequence[str], choices: Sequence[str]) -> list[str]:
    from saesweep.study import marginals

    metrics = [goal.split()[1] for goal in goals if goal.split()[1] != "l0"]
    params, measured = [row.params for row in rows], [row.metrics for row in rows]
    varied = [path for path in choices if len({repr(own[path]) for own in params if path in own}) > 1]
    found = [item for path in varied for metric in metrics for item in marginals(path, metric, params, measured)]
    if not found:
        return ["choices at equal L0: no choice was searched"]
    lines = ["choices at equal L0 (least squares on log L0 and the choice; against the mean of the values)"]
    return lines + [f"  {_marginal_text(item)}" for item in found]


def _marginal_text(item: Marginal) -> str:
    place = f"{item.path}, {label(item.metric)}"
    apart = [f"{value} (L0 {low:.3g}-{high:.3g})" for value, (low, high) in item.apart]
    alone = f"no common range of L0, not compared: {', '.join(apart)}" if apart else ""
    if not item.effects:
        few = f"{item.n_trials} finished trials are too few to separate the choice from L0"
        return f"{place}: {alone or few}"
    parts = []
    for e in item.effects:
        size = (
            f"{100 * e.effect:+.1f} ± {100 * e.stderr:.1f}%" if item.is_ratio else f"{e.effect:+.4f} ± {e.stderr:.4f}"
        )
        parts.append(f"{e.value} {size} (n {e.n_trials}, L0 {e.l0[0]:.3g}-{e.l0[1]:.3g})")
    return f"{place}: " + "; ".join([*parts, *([alone] if alone else [])])


def _is_finite(row: Row, metric: str) -> bool:
    return math.isfinite(row.metrics.get(metric, math.nan))


def _ordinal(number: int) -> str:
    endings = {1: "st", 2: "nd", 3: "rd"}
    return f"{number}{endings.get(number % 10, 'th') if number % 100 not in (11, 12, 13) else 'th'}"
