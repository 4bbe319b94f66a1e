"""The sweep as a whole on W&B, once it is over: every trial, the front and the best at each L0, as tables and plots."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from saesweep.events import MatchedEntry, Row, RunEnded
from saesweep.status import ENDED


def log_sweep(run: Any, event: RunEnded, goals: Sequence[str]) -> None:
    """Log the end of a sweep to its own W&B run and finish it. Waits for the network.

    Args:
        run: The open W&B run of the sweep.
        event: Its end.
        goals: The objective, such as `minimize delta_ce`.
    """
    import wandb

    metrics = [goal.split()[1] for goal in goals]
    y = next((name for name in metrics if name != "l0"), "explained_variance")
    values: dict[str, Any] = {"sweep/trials": _trials(event.rows)}
    points = [row for row in event.rows if row.status == "complete" and _is_known(row, "l0", y)]
    if points:
        columns = ["l0", y, "architecture", "trial", "on_front"]
        front = wandb.Table(
            columns=columns,
            data=[[row.metrics["l0"], row.metrics[y], row.architecture, row.number, row.on_front] for row in points],
        )
        values["sweep/front"] = front
        values["plots/front"] = wandb.plot.scatter(front, "l0", y, title=f"L0 against {y}")
    if event.matched:
        values["sweep/matched"] = _matched(event.matched)
        values["plots/matched"] = _matched_plot(event.matched)
    run.log(values)
    best = next((row for row in event.rows if row.number == event.best), None)
    ended: dict[str, int] = {status: sum(row.status == status for row in event.rows) for status in ENDED}
    run.summary.update(
        {
            "trials": len(event.rows),
            **ended,
            "best": event.best,
            "best_architecture": None if best is None else best.architecture,
            "notes": list(event.notes),
            **{f"test/{name}": value for name, value in event.test_metrics.items() if math.isfinite(value)},
        }
    )
    run.finish()


def _is_known(row: Row, *metrics: str) -> bool:
    return all(math.isfinite(row.metrics.get(name, math.nan)) for name in metrics)


def _trials(rows: Sequence[Row]) -> Any:
    """Return the leaderboard, one row per trial."""
    import wandb

    paths = list(dict.fromkeys(path for row in rows for path in row.params if path != "sae.architecture"))
    names = list(dict.fromkeys(name for row in rows for name in row.metrics))
    columns = ["rank", "trial", "architecture", "sparsity", *paths, *names, "tokens", "state", "reason", "on_front"]
    data = [
        [
            row.rank,
            row.number,
            row.architecture,
            row.sparsity,
            *(_plain(row.params.get(path)) for path in paths),
            *(value if math.isfinite(value := row.metrics.get(name, math.nan)) else None for name in names),
            row.tokens,
            row.status if row.feasible else "infeasible",
            row.reason,
            row.on_front,
        ]
        for row in rows
    ]
    return wandb.Table(columns=columns, data=data, allow_mixed_types=True)


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, (str, int, float)) else str(value)


def _matched(entries: Sequence[MatchedEntry]) -> Any:
    """Return the best at each L0, one row per architecture and target."""
    import wandb

    metrics = list(dict.fromkeys(name for entry in entries for name in entry.metrics))
    fields = ["target_l0", "architecture", "hook", "trial", "l0", "stderr", "behind", "behind_stderr"]
    marks = ["is_winner", "is_tied", "is_interpolated", "is_comparable", "still_improving", "replicates", "tokens"]
    data = []
    for entry in entries:
        known = asdict(entry)
        data.append(
            [*(known[name] for name in fields), *(entry.metrics.get(m) for m in metrics), *(known[m] for m in marks)]
        )
    columns = [*fields, *(name if name not in fields else f"{name} at target" for name in metrics), *marks]
    return wandb.Table(columns=columns, data=data, allow_mixed_types=True)


def _matched_plot(entries: Sequence[MatchedEntry]) -> Any:
    """Return the goal against the target L0, a line per architecture and hook."""
    import wandb

    lines: dict[str, list[MatchedEntry]] = {}
    hooks = {entry.hook for entry in entries}
    for entry in sorted(entries, key=lambda entry: entry.target_l0):
        lines.setdefault(entry.architecture + (f" at {entry.hook}" if len(hooks) > 1 else ""), []).append(entry)
    goal = entries[0].goal
    return wandb.plot.line_series(
        xs=[[entry.target_l0 for entry in own] for own in lines.values()],
        ys=[[entry.metrics[goal] for entry in own] for own in lines.values()],
        keys=list(lines),
        title=f"{goal} at the same L0",
        xname="L0",
    )
