"""What won, and by how much, as the report shows it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from saesweep.display.columns import row_label
from saesweep.display.text import metric_value, setting
from saesweep.events import Row
from saesweep.numbers import short_count
from saesweep.report.board import COLUMNS, known_metrics, metric_name
from saesweep.report.data import RunData
from saesweep.report.tables import Table, row_of
from saesweep.report.verdict import NOISE_FACTOR, comparisons

_CARDS = ("l0", "delta_ce", "ce_loss_score", "kl_div", "explained_variance", "mse", "dead_fraction")


def winner_section(run: RunData) -> dict[str, Any]:
    """Return what the first section shows."""
    best = run.best
    if best is None:
        return {"best": None, "notes": _notes(run)}
    metrics = {**best.metrics, **run.board.test_metrics}
    return {
        "best": best,
        "notes": _notes(run),
        "tokens": short_count(best.tokens),
        "params": [f"{path} = {setting(value)}" for path, value in best.params.items() if path != "sae.architecture"],
        "cards": [(metric_name(name), *_value(name, metrics)) for name in _CARDS if name in metrics],
        "is_test": bool(run.board.test_metrics),
        "margins": _margins(run, best),
    }


def _notes(run: RunData) -> list[str]:
    """Return the run's notes; with matched L0 the sections below say what won at each L0, and what still improves."""
    said = ("at L0 ", "still improving ") if run.board.matched else ()
    return [note for note in run.board.notes if not note.startswith(said)]


def _value(name: str, metrics: Mapping[str, float]) -> tuple[str, str]:
    """Return a metric and its standard error as text, empty where there is none."""
    error = metrics.get(f"{name}_stderr")
    known = isinstance(error, float) and math.isfinite(error)
    return metric_value(name, metrics.get(name)), f"± {error:.2g}" if known else ""


def _margins(run: RunData, best: Row) -> dict[str, Any] | None:
    found = comparisons(run)
    if not found:
        return None
    is_pareto = len(run.board.goals) > 1
    columns = [name for name in COLUMNS if run.has(name)]
    rows = [_margin_row(best, f"{best.number} (best)", columns, "", "", "best")]
    for item in found:
        error = f" ± {item.stderr:.2g}" if math.isfinite(item.stderr) else ""
        verdict = "within noise" if item.is_noise else ("worse" if item.is_best_better else "better")
        if is_pareto and best.metrics.get("l0", 0) > 0 and "l0" in item.other.metrics:
            verdict += f", at {item.other.metrics['l0'] / best.metrics['l0']:.2g}x its L0"
        difference = f"{item.difference:+.4g}{error}"
        rows.append(_margin_row(item.other, row_label(item.other), columns, difference, verdict, ""))
    heads = [
        "trial",
        "architecture",
        "sparsity",
        *map(metric_name, columns),
        f"{metric_name(found[0].metric)}: difference",
        "than the best",
    ]
    return {
        "which": "with the nearest L0" if is_pareto else "that is best by the goal",
        "target": None if best.target_l0 is None else f"{best.target_l0:g}",
        "noise_factor": f"{NOISE_FACTOR:g}",
        "table": Table(heads=heads, rows=rows, text_columns={1, 2, len(heads) - 1}),
    }


def _margin_row(row: Row, name: str, columns: list[str], difference: str, verdict: str, css: str) -> Any:
    known = known_metrics(row)
    # Without standard errors: the table's last columns would be out of sight.
    values = [metric_value(metric, known.get(metric)) for metric in columns]
    return row_of([name, row.architecture, row.sparsity, *values, difference, verdict], css, {1: row.architecture})
