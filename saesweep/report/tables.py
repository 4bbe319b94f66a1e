"""Tables of the report, as plain data for their templates: the leaderboard and the names of its metrics, where the time went, densities."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saesweep.costs import KINDS, WORDS
from saesweep.display.columns import row_label
from saesweep.display.text import duration, metric_value, setting
from saesweep.errors import UserError
from saesweep.events import Row
from saesweep.messages import short_count
from saesweep.report.data import RunData
from saesweep.report.figures import has_dead_fraction
from saesweep.runs import read_costs, read_json


@dataclass(frozen=True)
class Cell:
    """One cell."""

    text: str
    swatch: str = ""
    """The architecture whose mark stands before the text."""


@dataclass(frozen=True)
class TableRow:
    """One row."""

    cells: Sequence[Cell]
    css_class: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table; numbers are right-aligned, text left, and long text wraps."""

    heads: Sequence[str]
    rows: Sequence[TableRow]
    text_columns: Collection[int]
    wrapped_columns: Collection[int] = field(default_factory=frozenset)


def row_of(cells: Sequence[str], css_class: str = "", swatches: Mapping[int, str] | None = None) -> TableRow:
    """Return a row of plain texts; `swatches` names the architecture of the columns that show its mark."""
    marks = swatches or {}
    return TableRow([Cell(text, marks.get(i, "")) for i, text in enumerate(cells)], css_class)


COLUMNS = (
    "l0",
    "delta_ce",
    "ce_loss_score",
    "explained_variance",
    "dead_fraction",
    "probe_accuracy",
    "probe_auc",
    "decoder_cosine",
    "seed_stability",
    "seed_stability_both",
)
"""Metrics that every table of trials shows where they were measured."""
_NAMES = {
    "l0": "L0",
    "delta_ce": "ΔCE, nats",
    "ce_loss_score": "CE score",
    "kl_div": "KL, nats",
    "explained_variance": "explained variance",
    "mse": "MSE",
    "dead_fraction": "dead, %",
    "probe_accuracy": "probe accuracy",
    "probe_auc": "probe AUC",
    "decoder_cosine": "decoder cosine",
    "seed_stability": "seed stability",
    "seed_stability_both": "seed stability, encoder and decoder",
}
_IN_SPARSITY_COLUMN = ("sae.architecture", "sae.k", "sae.l0_coefficient", "sae.l1_coefficient", "target_l0")
"""Searched parameters that the first columns tell: the table would be wider than the page."""


def metric_name(metric: str) -> str:
    """Return how the page names a metric, with its unit."""
    return _NAMES.get(metric, metric)


def known_metrics(row: Row) -> dict[str, float]:
    """Return a trial's metrics; dead latents only where it has trained for a whole window."""
    return {name: value for name, value in row.metrics.items() if name != "dead_fraction" or has_dead_fraction(row)}


def board_section(run: RunData) -> dict[str, Any]:
    """Return what the section of the leaderboard shows."""
    metrics = [name for name in dict.fromkeys([*run.board.metrics, *COLUMNS]) if run.has(name)]
    paths = [
        path for path in dict.fromkeys(p for row in run.rows for p in row.params) if path not in _IN_SPARSITY_COLUMN
    ]
    is_ranked = any(row.rank is not None for row in run.board.table_rows)
    first = int(is_ranked)
    rows = []
    for row in run.board.table_rows:
        is_best = row.number == run.board.best and row.status != "reference"
        css = "best" if is_best else ("" if row.status in ("complete", "reference") else "unfinished")
        known = known_metrics(row)
        cells = [
            *(["" if row.rank is None else str(row.rank)] if is_ranked else []),
            row_label(row),
            row.architecture,
            row.sparsity,
            *(metric_value(name, known.get(name)) for name in metrics),
            *(setting(row.params[path]) if path in row.params else "" for path in paths),
            "" if row.status == "reference" else short_count(row.tokens),
            row.status if row.feasible else "infeasible",
        ]
        rows.append(row_of(cells, css, {first + 1: row.architecture}))
    heads = [
        *(["rank"] if is_ranked else []),
        "trial",
        "architecture",
        "sparsity",
        *map(metric_name, metrics),
        *paths,
        "tokens",
        "state",
    ]
    return {
        "table": Table(heads=heads, rows=rows, text_columns={first + 1, first + 2, len(heads) - 1}),
        "has_baselines": any(row.is_baseline for row in run.rows),
        "references": [(row_label(row), row.source, f"{row.d_sae:,}") for row in run.board.references],
        "failures": [(row.number, row.reason) for row in run.rows if row.reason and row.status == "failed"],
    }


def cost_table(file: Path) -> Table | None:
    """Return the table of a run's `costs.json`, all starts together; None where it has none yet.

    Raises:
        UserError: The file is damaged.
    """
    costs = read_costs(file)
    total = sum(costs.values())
    if total <= 0:
        return None
    spent = sorted(((costs[kind], kind) for kind in KINDS if costs[kind] > 0), reverse=True)
    rows = [row_of([WORDS[kind], duration(seconds), f"{100 * seconds / total:.0f}%"]) for seconds, kind in spent]
    return Table(heads=["work", "time", "share"], rows=rows, text_columns={0})


def read_log10_densities(folder: Path) -> list[float]:
    """Return log10 of the share of tokens on which each latent of an exported SAE fires; empty where it has none."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    file = folder / "sparsity.safetensors"
    if not file.exists():
        return []
    try:
        values = [float(v) for v in load_file(file)["sparsity"]]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{file}: damaged ({reason}); export the SAE again, or remove this file") from None
    if not all(map(math.isfinite, values)):
        raise UserError(f"{file}: damaged, it holds NaN or infinities; export the SAE again, or remove this file")
    return values


def counted_on(folder: Path) -> str:
    """Return which tokens the densities of an exported SAE are counted on, such as `32,768 held-out test tokens`.

    Exports of versions that counted in training say so: their figures include the dense beginning of the run.
    """
    file = folder / "provenance.json"
    provenance = read_json(file) if file.exists() else None
    found = provenance.get("densities") if isinstance(provenance, dict) else None
    if not isinstance(found, dict):
        return "training tokens (an export of an earlier version), which may include a dense beginning of the run"
    return f"{found.get('tokens', 0):,} held-out {found.get('part')} tokens"
