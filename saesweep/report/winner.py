"""What won, and by how much: the winner against each architecture's nearest finished trial, as figures and as the report shows it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from saesweep.display.columns import row_label
from saesweep.display.text import metric_value, parameter_label, setting
from saesweep.events import Row
from saesweep.messages import short_count
from saesweep.report.data import RunData
from saesweep.report.tables import Table, known_metrics, metric_name, row_of

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
    where there is no language model. With matched L0 only trials with the winner's target are compared, and where the run has
    a table of its matched L0s, references alone: that table compares the others with sharper, paired errors.
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
    for architecture in () if run.board.matched else run.architectures:
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


_COMPARED = ("l0", "delta_ce", "ce_loss_score", "explained_variance", "dead_fraction")
"""Columns beside the difference: all that has room at the width of the page; the leaderboard has the others."""
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
        "params": [
            f"{parameter_label(path)} = {setting(value)}"
            for path, value in best.params.items()
            if path != "sae.architecture"
        ],
        "cards": [(metric_name(name), *_value(name, metrics)) for name in _CARDS if name in metrics],
        "is_test": bool(run.board.test_metrics),
        "margins": _margins(run, best),
    }


def _notes(run: RunData) -> list[str]:
    """Return the run's notes; with matched L0 the sections below say what won at each L0, and what still improves."""
    known_prefixes = ("at L0 ", "still improving ") if run.board.matched else ()
    notes = [note for note in run.board.notes if not note.startswith(known_prefixes)]
    # A note begins with a word or with a name as the file has it, such as best/ or delta_ce.
    return [note[:1].upper() + note[1:] if note.split(" ")[0].isalpha() else note for note in notes]


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
    which = "with the nearest L0" if is_pareto else "that is best by the goal"
    target = "" if best.target_l0 is None else f" at its target, L0 {best.target_l0:g}"
    others = "" if run.board.matched else f"the finished trial of each architecture {which}{target}"
    columns = [name for name in dict.fromkeys((*_COMPARED, found[0].metric)) if run.has(name)]
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
        "others": ", and ".join(part for part in (others, "references" if run.board.references else "") if part),
        "noise_factor": f"{NOISE_FACTOR:g}",
        "table": Table(heads=heads, rows=rows, text_columns={1, 2, len(heads) - 1}),
    }


def _margin_row(row: Row, name: str, columns: list[str], difference: str, verdict: str, css: str) -> Any:
    known = known_metrics(row)
    # Without standard errors: the table's last columns would be out of sight.
    values = [metric_value(metric, known.get(metric)) for metric in columns]
    return row_of([name, row.architecture, row.sparsity, *values, difference, verdict], css, {1: row.architecture})
