"""Finished trials in the objective's own metrics, with the Pareto line of all and that of each architecture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from saesweep.display.text import label, metric_value
from saesweep.events import Row
from saesweep.report.data import RunData
from saesweep.report.style import INK, MUTED, figure, is_better_high, marker, metric_axis, metric_title, style_of

_FURTHER = ("delta_ce", "ce_loss_score", "explained_variance")
_IN_HOVER = ("l0", "delta_ce", "ce_loss_score", "explained_variance", "dead_fraction")


def goals_of(run: RunData) -> dict[str, str]:
    """Return the objective's metrics, each with its direction."""
    return {metric: direction for direction, metric in (goal.split()[:2] for goal in run.board.goals)}


def goals_in_words(run: RunData) -> list[str]:
    """Return the goals with their metrics as columns and axes name them, such as `minimize ΔCE at L0 16, 32`."""
    parts = [goal.split(" ", 2) for goal in run.board.goals]
    return [" ".join([direction, label(metric), *rest]) for direction, metric, *rest in parts]


def front_pairs(run: RunData) -> list[tuple[str, str]]:
    """Return the pairs of metrics to draw: the objective's own first, then L0 against what else was measured."""
    goals = list(goals_of(run))
    x = "l0" if "l0" in goals or len(goals) == 1 else goals[0]
    others = [name for name in goals if name != x] + [name for name in _FURTHER if run.has(name)]
    return [(x, name) for name in dict.fromkeys(others) if name != x]


def front_figures(run: RunData) -> dict[str, go.Figure]:
    """Return one figure for each pair, by what its menu calls it."""
    return {f"{label(x)} against {label(y)}": _front(run, x, y) for x, y in front_pairs(run)}


def better_corner(run: RunData, x: str, y: str) -> str:
    """Return where in the plot the better trials are, such as `lower left`."""
    goals = goals_of(run)
    return f"{'upper' if is_better_high(y, goals) else 'lower'} {'right' if is_better_high(x, goals) else 'left'}"


def _front(run: RunData, x: str, y: str) -> go.Figure:
    made = figure(x=metric_title(x), y=metric_title(y))
    finished = [row for row in run.complete if _has(row, x, y)]
    others = [row for row in run.rows if row.status != "complete" and _has(row, x, y)]
    published = [row for row in run.board.references if _has(row, x, y)]
    shown = [*finished, *published] or others
    made.update_xaxes(**metric_axis(x, [row.metrics[x] for row in shown]))
    made.update_yaxes(**metric_axis(y, [row.metrics[y] for row in shown]))
    goals = goals_of(run)
    line = pareto_line([row for row in finished if row.feasible], x, y, goals)
    if line:
        made.add_scatter(
            x=[row.metrics[x] for row in line],
            y=[row.metrics[y] for row in line],
            mode="lines",
            name="front of all",
            line={"color": INK, "width": 2.5},
            opacity=0.55,
            hoverinfo="skip",
        )
    for architecture in run.architectures:
        rows = [row for row in finished if row.architecture == architecture]
        if not rows:
            continue
        own = pareto_line(rows, x, y, goals)
        made.add_scatter(
            x=[row.metrics[x] for row in own],
            y=[row.metrics[y] for row in own],
            mode="lines",
            line={"color": style_of(architecture).colour, "width": 1.5, "dash": "dot"},
            hoverinfo="skip",
            showlegend=False,
            legendgroup=architecture,
        )
        made.add_scatter(
            x=[row.metrics[x] for row in rows],
            y=[row.metrics[y] for row in rows],
            mode="markers",
            name=f"{architecture} ({len(rows)})",
            legendgroup=architecture,
            marker=marker(architecture, size=10, opacity=[1.0 if row.feasible else 0.35 for row in rows]),
            text=[describe(row) for row in rows],
            hovertemplate="%{text}<extra></extra>",
        )
    if others:
        made.add_scatter(
            x=[row.metrics[x] for row in others],
            y=[row.metrics[y] for row in others],
            mode="markers",
            name=f"not finished ({len(others)})",
            visible="legendonly" if finished else True,
            marker={
                "color": [style_of(row.architecture).colour for row in others],
                "symbol": [style_of(row.architecture).symbol for row in others],
                "size": 7,
                "opacity": 0.5,
            },
            text=[describe(row) for row in others],
            hovertemplate="%{text}<extra></extra>",
        )
    if published:
        made.add_scatter(
            x=[row.metrics[x] for row in published],
            y=[row.metrics[y] for row in published],
            mode="markers+text",
            name="references",
            text=[f"r{row.number}" for row in published],
            textposition="top center",
            marker={"color": INK, "symbol": "star", "size": 11},
            customdata=[f"<b>reference {row.source}</b><br>{describe(row)}" for row in published],
            hovertemplate="%{customdata}<extra></extra>",
        )
    best = run.best
    if best is not None and _has(best, x, y):
        made.add_scatter(
            x=[best.metrics[x]],
            y=[best.metrics[y]],
            mode="markers",
            name=f"best: trial {best.number}",
            marker={"symbol": "circle-open", "size": 20, "color": INK, "line": {"width": 2}},
            hoverinfo="skip",
        )
    if not made.data:
        annotate_empty(made, "No trial has been measured yet.")
    return made


def annotate_empty(made: go.Figure, text: str) -> None:
    """Write into a figure why it shows nothing; its axes stay."""
    made.add_scatter(x=[None], y=[None], showlegend=False, hoverinfo="skip")
    made.add_annotation(
        text=text, x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False, font={"size": 15, "color": MUTED}
    )


def pareto_line(rows: Sequence[Row], x: str, y: str, goals: Mapping[str, str]) -> list[Row]:
    """Return the rows that none of the others beats in both metrics, in the order of the first."""
    signs = [-1.0 if is_better_high(name, goals) else 1.0 for name in (x, y)]
    cost = {row.number: (signs[0] * row.metrics[x], signs[1] * row.metrics[y]) for row in rows}
    kept = []
    lowest = math.inf
    for row in sorted(rows, key=lambda row: (cost[row.number], row.number)):
        if cost[row.number][1] < lowest:
            lowest = cost[row.number][1]
            kept.append(row)
    return sorted(kept, key=lambda row: row.metrics[x])


def describe(row: Row) -> str:
    """Return what hovering over a trial tells."""
    is_trial = row.status != "reference"
    what = f"<b>trial {row.number}</b> {row.architecture}" if is_trial else row.architecture
    lines = [f"{what} {row.sparsity}" + (f", lr {row.lr:.3g}" if is_trial else "")]
    lines += [] if row.status in ("complete", "reference") else [row.status]
    shown = [f"{label(name)} {metric_value(name, row.metrics[name])}" for name in _IN_HOVER if name in row.metrics]
    return "<br>".join([*lines, *shown])


def _has(row: Row, *metrics: str) -> bool:
    return all(
        math.isfinite(row.metrics.get(name, math.nan)) and (name != "l0" or row.metrics[name] > 0) for name in metrics
    )
