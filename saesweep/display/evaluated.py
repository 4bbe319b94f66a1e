"""The table of `saesweep eval`: one SAE a row, every metric with its standard error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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


def evaluation_text(comparison: Mapping[str, Any], added: Sequence[str] = ()) -> str:
    """Return the table and the lines below it.

    Args:
        comparison: As `Comparison.to_json` returns it.
        added: Metrics of plugins, shown behind the others.
    """
    saes: Sequence[Mapping[str, Any]] = comparison["saes"]
    columns = [name for name in (*METRICS, *added) if any(sae["metrics"].get(name) is not None for sae in saes)]
    if all(_has_no_sinks(sae["metrics"]) for sae in saes):
        columns = [name for name in columns if name != "explained_variance_no_sinks"]
    if len(saes) > 1 and "delta_ce" in columns:
        columns.insert(columns.index("delta_ce") + 1, "delta_ce_minus_first")
    table = [["SAE", "type", "d_sae", *(_HEADINGS.get(name, heading(name)) for name in columns)]]
    for number, sae in enumerate(saes):
        cells = [
            MISSING if name == "delta_ce_minus_first" and number == 0 else _cell(sae["metrics"], name)
            for name in columns
        ]
        table.append([sae["source"], sae["architecture"], str(sae["d_sae"]), *cells])
    lines = _aligned(table, left=2)
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


def _aligned(table: Sequence[Sequence[str]], *, left: int) -> list[str]:
    """Return the rows with columns aligned, headings on two lines, the first `left` columns to the left."""
    head = [cell.split("\n") for cell in table[0]]
    rows = [[(["", *cell])[-2] for cell in head], [cell[-1] for cell in head], *table[1:]]
    if not any(rows[0]):
        del rows[0]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    return [
        "  ".join(
            cell.ljust(w) if i < left else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
