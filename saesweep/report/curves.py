"""Training curves: one figure for each quantity, held-out metrics first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import plotly.graph_objects as go

from saesweep.display.text import label
from saesweep.events import Row
from saesweep.report.data import RunData
from saesweep.report.fronts import goals_of
from saesweep.report.style import axis_for, figure, metric_axis, metric_title, style_of

MAX_POINTS = 60_000
"""Points of all training curves together: what keeps the page of a long run of many trials below 5 MB."""
HELD_OUT = ("delta_ce", "explained_variance", "l0", "mse", "ce_loss_score")
TRAINED = {
    "losses/mse_loss": "training MSE loss",
    "losses/overall_loss": "training loss (terms differ between architectures)",
    "sparsity/dead_features": "dead latents",
    "details/current_learning_rate": "learning rate",
}
"""What is logged at each block, with its title."""
_LOG = ("losses/mse_loss", "losses/overall_loss")
Key = tuple[str, str]
"""Kind of the line in `metrics.jsonl` and name of the quantity."""
T = TypeVar("T")


def curve_figures(run: RunData) -> dict[str, go.Figure]:
    """Return a figure for each quantity that was logged, by its title: the objective's held-out metrics come first."""
    held_out = [name for name in dict.fromkeys([*goals_of(run), *HELD_OUT])]
    held_out.sort(key=lambda name: name == "l0")  # the other goal says more of how a trial is coming on
    keys: list[tuple[Key, str]] = [(("select", name), f"{label(name)}, held out") for name in held_out]
    keys += [(("train", name), title) for name, title in TRAINED.items()]
    points = {key: {row.number: _points(run, row, key) for row in run.rows} for key, _ in keys}
    known = [(key, title) for key, title in keys if any(points[key].values())]
    share = MAX_POINTS // max(1, len(known) * len(run.rows))
    return {title: _curves(run, key, title, points[key], share) for key, title in known}


def _curves(run: RunData, key: Key, title: str, points: dict[int, list[tuple[int, float]]], share: int) -> go.Figure:
    kind, name = key
    made = figure(x="tokens that the trial has trained on", y=metric_title(name) if kind == "select" else title)
    values = [value for own in points.values() for _, value in own]
    end = max((row.total_tokens for row in run.rows), default=0)
    made.update_xaxes(**axis_for([0, end, *(t for own in points.values() for t, _ in own)], from_zero=True))
    made.update_xaxes(tickformat="~s")
    made.update_yaxes(
        **(metric_axis(name, values) if kind == "select" else axis_for(values, log=_is_log(name, values)))
    )
    seen: set[str] = set()
    for row in run.finished_first:
        kept = thinned(points[row.number], share)
        if not kept:
            continue
        style, is_best = style_of(row.architecture), row.number == run.board.best
        made.add_scatter(
            x=[tokens for tokens, _ in kept],
            y=[value for _, value in kept],
            mode="lines+markers",  # a trial that was pruned early may have a single point
            marker={"size": 7 if is_best else 5, "symbol": style.symbol},
            name=row.architecture,
            legendgroup=row.architecture,
            legendrank=run.legend_rank(row.architecture),
            showlegend=row.architecture not in seen,
            line={
                "color": style.colour,
                "width": 3 if is_best else 1.3,
                "dash": "solid" if row.status == "complete" else "dot",
            },
            opacity=1.0 if row.status == "complete" else 0.8,
            hovertemplate=f"trial {row.number}, {row.architecture} {row.sparsity}<br>%{{x:,}} tokens: %{{y:.4g}}<extra></extra>",
        )
        seen.add(row.architecture)
    return made


def _is_log(name: str, values: Sequence[float]) -> bool:
    return name in _LOG and all(value > 0 for value in values)


def _points(run: RunData, row: Row, key: Key) -> list[tuple[int, float]]:
    kind, name = key
    return [
        (line["tokens"], line[name])
        for line in run.metrics.get(row.number, ())
        if line["kind"] == kind and line.get(name) is not None and math.isfinite(line[name])
    ]


def thinned(points: Sequence[T], max_points: int) -> Sequence[T]:
    """Return at most about `most` points, evenly spaced, the last one among them."""
    stride = -(-len(points) // max(2, max_points))
    return points[(len(points) - 1) % stride :: stride] if stride > 1 else points
