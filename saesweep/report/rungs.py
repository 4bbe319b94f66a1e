"""What was pruned: at which rung, why, and what it was expected to reach."""

from __future__ import annotations

import math

import plotly.graph_objects as go

from saesweep.display.text import label, metric_value, percent
from saesweep.events import Row
from saesweep.messages import short_count
from saesweep.report.data import RunData
from saesweep.report.fronts import goals_of
from saesweep.report.style import INK, axis_for, figure, marker, metric_axis, metric_title, style_of
from saesweep.report.tables import Table, row_of


def pruned_rows(run: RunData) -> list[Row]:
    """Return the pruned trials, the one that was pruned first at the top."""
    return sorted((row for row in run.rows if row.status == "pruned"), key=lambda row: (row.tokens, row.number))


def pruned_table(run: RunData) -> Table:
    """Return the table of the pruned trials."""
    goals = list(goals_of(run))
    rows = []
    for row in pruned_rows(run):
        expected = run.expected.get(row.number, {})
        there = [
            text
            for name in goals
            for text in (metric_value(name, row.metrics.get(name)), metric_value(name, expected.get(name)))
        ]
        at = f"{short_count(row.tokens)} ({percent(row.tokens, row.total_tokens)})"
        cells = [str(row.number), row.architecture, row.sparsity, at, *there, _why(row.reason)]
        rows.append(row_of(cells, swatches={1: row.architecture}))
    names = [text for name in goals for text in (f"{label(name)} there", f"{label(name)} expected")]
    heads = ["trial", "architecture", "sparsity", "pruned at", *names, "why"]
    return Table(heads=heads, rows=rows, text_columns={1, 2, len(heads) - 1}, wrapped_columns={len(heads) - 1})


def _why(reason: str) -> str:
    """Return a prune's reason without the forecast, which the table has beside it."""
    forecast, _, rest = reason.partition("; ")
    return rest if " its forecast is " in forecast and rest else reason


def rung_figures(run: RunData) -> dict[str, go.Figure]:
    """Return, for each goal that was measured on the way, what every trial measured and what pruned ones were expected to reach."""
    found = {}
    for metric in sorted(goals_of(run), key=lambda name: name == "l0"):
        if any(_measured(run, row, metric) for row in run.rows):
            found[label(metric)] = _rungs(run, metric)
    return found


def _rungs(run: RunData, metric: str) -> go.Figure:
    made = figure(x="tokens that the trial has trained on", y=metric_title(metric))
    values, named = [], set()
    for row in run.finished_first:
        points = _measured(run, row, metric)
        if not points:
            continue
        values += [value for _, value in points]
        style = style_of(row.architecture)
        what = f"trial {row.number}, {row.architecture} {row.sparsity}"
        made.add_scatter(
            x=[tokens for tokens, _ in points],
            y=[value for _, value in points],
            mode="lines+markers",
            name=row.architecture,
            legendgroup=row.architecture,
            legendrank=run.legend_rank(row.architecture),
            showlegend=row.architecture not in named,
            line={"color": style.colour, "width": 1.5},
            marker=marker(row.architecture, size=7, line={"color": INK, "width": 0}),
            opacity=1.0 if row.status == "complete" else 0.75,
            hovertemplate=f"{what}: {row.status}<br>%{{x:,}} tokens: %{{y:.4g}}<extra></extra>",
        )
        named.add(row.architecture)
        end = run.expected.get(row.number, {}).get(metric, math.nan)
        if row.status == "pruned" and math.isfinite(end):
            values.append(end)
            made.add_scatter(
                x=[points[-1][0], row.total_tokens],
                y=[points[-1][1], end],
                mode="lines+markers",
                legendgroup=row.architecture,
                showlegend=False,
                line={"color": style.colour, "width": 1.2, "dash": "dot"},
                marker={"symbol": ["circle", f"{style.symbol}-open"], "size": [0, 9], "color": style.colour},
                opacity=0.75,
                hovertemplate=[
                    None,
                    f"{what}: pruned<br>expected to end with {label(metric)} %{{y:.4g}}<extra></extra>",
                ],
            )
    end_tokens = max((row.total_tokens for row in run.rows), default=0)
    made.update_xaxes(**axis_for([0, end_tokens], from_zero=True))
    made.update_xaxes(tickformat="~s")
    made.update_yaxes(**metric_axis(metric, values))
    return made


def _measured(run: RunData, row: Row, metric: str) -> list[tuple[int, float]]:
    """Return what a trial measured on held-out tokens: (its training tokens, value)."""
    return [
        (line["tokens"], line[metric])
        for line in run.metrics.get(row.number, ())
        if line["kind"] == "select" and math.isfinite(line.get(metric, math.nan))
    ]
