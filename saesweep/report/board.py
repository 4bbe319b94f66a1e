"""The report's leaderboard, and how its tables name metrics."""

from __future__ import annotations

from typing import Any

from saesweep.display.columns import row_label
from saesweep.display.text import metric_value, setting
from saesweep.events import Row
from saesweep.numbers import short_count
from saesweep.report.data import RunData
from saesweep.report.figures import knows_dead
from saesweep.report.tables import Table, row_of

COLUMNS = ("l0", "delta_ce", "ce_loss_score", "explained_variance", "dead_fraction")
"""Metrics that every table of trials shows where they were measured."""
_NAMES = {
    "l0": "L0",
    "delta_ce": "ΔCE, nats",
    "ce_loss_score": "CE score",
    "kl_div": "KL, nats",
    "explained_variance": "explained variance",
    "mse": "MSE",
    "dead_fraction": "dead, %",
}
_SAID = ("sae.architecture", "sae.k", "sae.l0_coefficient", "sae.l1_coefficient", "target_l0")
"""Searched parameters that the first columns tell: the table would be wider than the page."""


def metric_name(metric: str) -> str:
    """Return how the page names a metric, with its unit."""
    return _NAMES.get(metric, metric)


def known_metrics(row: Row) -> dict[str, float]:
    """Return a trial's metrics; dead latents only where it has trained for a whole window."""
    return {name: value for name, value in row.metrics.items() if name != "dead_fraction" or knows_dead(row)}


def board_section(run: RunData) -> dict[str, Any]:
    """Return what the section of the leaderboard shows."""
    metrics = [name for name in dict.fromkeys([*run.board.metrics, *COLUMNS]) if run.has(name)]
    paths = [path for path in dict.fromkeys(p for row in run.rows for p in row.params) if path not in _SAID]
    rows = []
    for row in run.board.table_rows:
        is_best = row.number == run.board.best and row.status != "reference"
        css = "best" if is_best else ("" if row.status in ("complete", "reference") else "unfinished")
        known = known_metrics(row)
        cells = [
            "" if row.rank is None else str(row.rank),
            row_label(row),
            row.architecture,
            row.sparsity,
            *(metric_value(name, known.get(name)) for name in metrics),
            *(setting(row.params[path]) if path in row.params else "" for path in paths),
            "" if row.status == "reference" else short_count(row.tokens),
            row.status if row.feasible else "infeasible",
        ]
        rows.append(row_of(cells, css, {2: row.architecture}))
    heads = ["rank", "trial", "architecture", "sparsity", *map(metric_name, metrics), *paths, "tokens", "state"]
    return {
        "table": Table(heads=heads, rows=rows, text_columns={2, 3, len(heads) - 1}),
        "has_baselines": any(row.is_baseline for row in run.rows),
        "references": [(row_label(row), row.source, f"{row.d_sae:,}") for row in run.board.references],
        "failures": [(row.number, row.reason) for row in run.rows if row.reason and row.status == "failed"],
    }
