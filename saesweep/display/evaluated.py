"""The table of `saesweep eval`: one SAE a row, every metric with its standard error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from saesweep.display.columns import Column, fit_columns
from saesweep.display.text import MISSING, heading, metric_value
from saesweep.specs.joint_hooks import EXPLAINED_AT

METRICS = (
    "l0",
    "delta_ce",
    "kl_div",
    "ce_loss_score",
    "explained_variance",
    "explained_variance_no_sinks",
    "mse",
    "cosine_similarity",
    "probe_accuracy",
    "probe_auc",
    "decoder_cosine",
    "silent_fraction",
)
"""Columns, in order; those that no SAE has are left out, and so is the one without sinks where there are none."""
_HEADINGS = {"silent_fraction": "silent\n%", "ce_loss_score": "CE\nscore", "delta_ce_minus_first": "ΔCE -\nfirst"}
_KEEP = {
    "l0": 97,
    "delta_ce": 96,
    "delta_ce_minus_first": 90,
    "explained_variance": 85,
    "ce_loss_score": 55,
    "kl_div": 50,
}
"""What outlives other metrics where the screen is narrow."""
_KEEP_TYPE, _KEEP_WIDTH, _KEEP_OTHER = 60, 30, 40


def evaluation_text(comparison: Mapping[str, Any], added: Sequence[str] = (), *, width: int | None = None) -> str:
    """Return the table and the lines below it.

    Args:
        comparison: As `Comparison.to_json` returns it.
        added: Metrics of plugins, shown behind the others.
        width: Characters of a line: where the table is wider, the least important columns are left out. None: its natural width.
    """
    saes: Sequence[Mapping[str, Any]] = comparison["saes"]
    columns = [name for name in (*METRICS, *added) if any(sae["metrics"].get(name) is not None for sae in saes)]
    if all(_has_no_sinks(sae["metrics"]) for sae in saes):
        columns = [name for name in columns if name != "explained_variance_no_sinks"]
    if len(saes) > 1 and "delta_ce" in columns:
        columns.insert(columns.index("delta_ce") + 1, "delta_ce_minus_first")
    table = [
        _column("SAE", [sae["source"] for sae in saes], keep=100, left=True),
        _column("type", [sae["architecture"] for sae in saes], keep=_KEEP_TYPE, left=True),
        _column("d_sae", [str(sae["d_sae"]) for sae in saes], keep=_KEEP_WIDTH),
    ]
    for name in columns:
        cells = [
            MISSING if name == "delta_ce_minus_first" and number == 0 else _cell(sae["metrics"], name)
            for number, sae in enumerate(saes)
        ]
        table.append(_column(_HEADINGS.get(name, heading(name)), cells, keep=_KEEP.get(name, _KEEP_OTHER)))
    shown, left_out = (table, []) if width is None else fit_columns(table, width)
    lines = _aligned(shown)
    if left_out:
        lines.append(f"columns left out on this width: {', '.join(left_out)}; --json has all")
    lines += _by_hook(saes)
    hooks = ", ".join(dict.fromkeys(sae["hook"] for sae in saes))
    where = f"{comparison['tokens']} tokens of {comparison['dataset']} ({comparison['part']}), {hooks}"
    model = f" of {comparison['model']}" if comparison["model"] else ""
    lines.append(f"{where}{model}; ± standard error over contexts; {comparison['ablation']} ablation")
    return "\n".join([*lines, *(f"note: {note}" for note in comparison["notes"])])


def _by_hook(saes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line on every crosscoder: how much of the variance it explains at each of the hooks that it reads."""
    found = []
    for sae in saes:
        values = {
            name.removeprefix(EXPLAINED_AT): v for name, v in sae["metrics"].items() if name.startswith(EXPLAINED_AT)
        }
        if values:
            listed = ", ".join(f"{hook} {metric_value('explained_variance', value)}" for hook, value in values.items())
            found.append(f"explained variance by hook of {sae['source']}: {listed}")
    return found


def _has_no_sinks(metrics: Mapping[str, float | None]) -> bool:
    own = metrics.get("explained_variance_no_sinks")
    return own is not None and own == metrics.get("explained_variance")


def _cell(metrics: Mapping[str, float | None], name: str) -> str:
    value, error = metrics.get(name), metrics.get(f"{name}_stderr")
    if name == "silent_fraction":
        return MISSING if value is None else f"{100 * value:.1f}"
    if name == "delta_ce_minus_first":
        text = MISSING if value is None else f"{value:+.4f}"
    else:
        text = metric_value(name, value)
    return text if error is None or value is None else f"{text} ±{_error(name, error)}"


def _error(name: str, error: float) -> str:
    return f"{error:.4f}" if name == "delta_ce_minus_first" else metric_value(name, error)


def _column(title: str, cells: Sequence[str], *, keep: int, left: bool = False) -> Column:
    name = title.replace("\n", " ")
    return Column(name=name, heading=title, cells=tuple(cells), align="left" if left else "right", keep=keep)


def _aligned(columns: Sequence[Column]) -> list[str]:
    """Return the rows with columns aligned, headings on two lines."""
    heads = [["", *column.heading.split("\n")][-2:] for column in columns]
    rows = [[upper for upper, _ in heads], [lower for _, lower in heads]]
    rows += [list(row) for row in zip(*(column.cells for column in columns), strict=True)]
    if not any(rows[0]):
        del rows[0]
    return [
        "  ".join(
            cell.ljust(column.width) if column.align == "left" else cell.rjust(column.width)
            for cell, column in zip(row, columns, strict=True)
        ).rstrip()
        for row in rows
    ]
