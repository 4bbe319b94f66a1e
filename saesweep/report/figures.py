"""The report's own figures: fronts, training curves, slots, latents, speed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import plotly.graph_objects as go

from saesweep.events import Row
from saesweep.report.data import RunData
from saesweep.report.style import LOG_TICKS, colours, figure, symbols

MOST_CURVE_POINTS = 60_000
"""Points of all training curves together: what keeps the page of a long run of many trials below 5 MB."""
MOST_RATES = 2_000
T = TypeVar("T")
CURVES = {
    "losses/mse_loss": "training MSE loss",
    "losses/overall_loss": "training loss (terms differ between architectures)",
    "select:explained_variance": "explained variance, held out",
    "select:l0": "L0, held out",
    "sparsity/dead_features": "dead latents",
    "details/current_learning_rate": "learning rate",
}
"""What the curves figure can show; `select:` marks held-out metrics."""


_OUTLINES = {"failed": "#a40e26", "interrupted": "#E69F00"}


def front_figure(run: RunData, metric: str, title: str) -> go.Figure:
    """Return L0 against a metric that is better when higher, with each architecture's own front as a line."""
    made = figure(x="L0 (active latents per token, log scale)", y=title)
    made.update_xaxes(type="log", **LOG_TICKS)
    colour, symbol = colours(run.architectures), symbols(run.architectures)
    for architecture in run.architectures:
        rows = [row for row in run.complete if row.architecture == architecture and _has(row, "l0", metric)]
        if not rows:
            continue
        line = sorted(_upper_front(rows, metric), key=lambda row: row.metrics["l0"])
        made.add_scatter(
            x=[row.metrics["l0"] for row in line],
            y=[row.metrics[metric] for row in line],
            mode="lines",
            line={"color": colour[architecture], "width": 1.5},
            hoverinfo="skip",
            showlegend=False,
            legendgroup=architecture,
        )
        made.add_scatter(
            x=[row.metrics["l0"] for row in rows],
            y=[row.metrics[metric] for row in rows],
            mode="markers",
            name=f"{architecture} ({len(rows)})",
            legendgroup=architecture,
            marker={"color": colour[architecture], "symbol": symbol[architecture], "size": 10},
            text=[_describe(row) for row in rows],
            hovertemplate="%{text}<extra></extra>",
        )
    published = [row for row in run.board.references if _has(row, "l0", metric)]
    if published:
        made.add_scatter(
            x=[row.metrics["l0"] for row in published],
            y=[row.metrics[metric] for row in published],
            mode="markers+text",
            name="references",
            text=[f"r{row.number}" for row in published],
            textposition="top center",
            marker={"color": "#000000", "symbol": "star", "size": 11},
            customdata=[f"<b>reference {row.source}</b><br>{_describe(row)}" for row in published],
            hovertemplate="%{customdata}<extra></extra>",
        )
    best = run.best
    if best is not None and _has(best, "l0", metric):
        made.add_scatter(
            x=[best.metrics["l0"]],
            y=[best.metrics[metric]],
            mode="markers",
            name=f"best: trial {best.number}",
            marker={"symbol": "circle-open", "size": 20, "color": "#000000", "line": {"width": 2}},
            hoverinfo="skip",
        )
    return made


def curves_figure(run: RunData) -> go.Figure:
    """Return training curves, one line per trial; a menu changes the quantity."""
    made = figure(x="tokens that the trial has trained on", y="", height=480)
    colour = colours(run.architectures)
    names = [name for name in CURVES if any(_points(run, row, name)[0] for row in run.rows)]
    by_number = sorted(run.rows, key=lambda row: row.number)
    for index, name in enumerate(names):
        seen: set[str] = set()
        for row in by_number:
            x, y = _points(run, row, name)
            made.add_scatter(
                x=x,
                y=y,
                mode="lines+markers",  # a trial pruned early may have a single point
                marker={"size": 4},
                visible=index == 0,
                name=row.architecture,
                legendgroup=row.architecture,
                showlegend=row.architecture not in seen,
                line={
                    "color": colour[row.architecture],
                    "width": 3 if row.number == run.board.best else 1.3,
                    "dash": "solid" if row.status == "complete" else "dot",
                },
                opacity=1.0 if row.status == "complete" else 0.6,
                hovertemplate=f"trial {row.number}, {row.architecture} {row.sparsity}<br>%{{x:,}} tokens: %{{y:.4g}}<extra></extra>",
            )
            seen.add(row.architecture)
    axes = {name: _curve_axis(name) for name in names}
    buttons = [
        {
            "label": CURVES[name],
            "method": "update",
            "args": [
                {"visible": [other == name for other in names for _ in by_number]},
                {f"yaxis.{key}": value for key, value in axes[name].items()},
            ],
        }
        for name in names
    ]
    if names:
        made.update_yaxes(**{key.replace(".", "_"): value for key, value in axes[names[0]].items()})
        made.update_layout(
            updatemenus=[{"buttons": buttons, "x": 0, "xanchor": "left", "y": 1.24, "yanchor": "top"}],
            margin={"t": 100},
        )
    return made


def _curve_axis(name: str) -> dict[str, Any]:
    if name in ("losses/mse_loss", "losses/overall_loss", "select:l0"):
        return {"title.text": CURVES[name], "type": "log", **LOG_TICKS}
    return {"title.text": CURVES[name], "type": "linear", "tickmode": "auto"}


def timeline_figure(run: RunData) -> go.Figure:
    """Return which trial was in which slot, and when."""
    slots = sorted({stay.slot for stay in run.stays})
    made = figure(
        x="minutes of running time", y="slot", height=140 + 42 * max(1, len(slots)), barmode="overlay", bargap=0.15
    )
    made.update_yaxes(tickvals=slots, autorange="reversed", showgrid=False)
    rows = {row.number: row for row in run.rows}
    colour = colours(run.architectures)
    named: set[str] = set()
    for stay in run.stays:
        row = rows.get(stay.trial)
        architecture = row.architecture if row is not None else "?"
        length = (stay.end_seconds - stay.begin_seconds) / 60
        made.add_bar(
            orientation="h",
            x=[length],
            y=[stay.slot],
            base=[stay.begin_seconds / 60],
            name=architecture,
            legendgroup=architecture,
            showlegend=architecture not in named,
            text=str(stay.trial),
            textposition="inside",
            insidetextanchor="middle",
            marker={
                "color": colour.get(architecture, "#999999"),
                "opacity": 1.0 if stay.status == "complete" else 0.55,
                "line": {"color": _OUTLINES.get(stay.status, "white"), "width": 1.5},
            },
            hovertemplate=f"trial {stay.trial}, {architecture}: {stay.status} after {length:.2f} min in slot {stay.slot}<extra></extra>",
        )
        named.add(architecture)
    return made


def knows_dead(row: Row) -> bool:
    """Return whether a trial has trained for its whole dead-latent window: before that no latent can be dead."""
    window = row.dead_window_tokens or 0
    return "dead_fraction" in row.metrics and (row.measured_at_tokens or 0) >= window


def dead_figure(run: RunData) -> go.Figure:
    """Return the share of dead latents of each trial when it was last measured."""
    made = figure(x="trial (best first)", y="dead latents, % of the dictionary", height=340)
    colour = colours(run.architectures)
    rows = [row for row in run.rows if knows_dead(row)]
    for architecture in run.architectures:
        mine = [row for row in rows if row.architecture == architecture]
        if mine:
            made.add_bar(
                x=[str(row.number) for row in mine],
                y=[100 * row.metrics["dead_fraction"] for row in mine],
                name=architecture,
                marker={"color": colour[architecture], "opacity": [1 if r.status == "complete" else 0.5 for r in mine]},
                hovertemplate=[
                    f"trial {row.number}: %{{y:.2f}}% silent for {row.dead_window_tokens or 0:,} tokens<extra></extra>"
                    for row in mine
                ],
            )
    made.update_xaxes(type="category", categoryorder="array", categoryarray=[str(row.number) for row in rows])
    return made


def density_figure(log10_frequencies: Sequence[float]) -> go.Figure:
    """Return the histogram of firing frequencies of the winner's latents."""
    made = figure(x="log10 of the share of tokens on which a latent fires", y="latents", height=340)
    made.add_histogram(x=[round(v, 4) for v in log10_frequencies], nbinsx=60, marker={"color": "#0072B2"})
    return made


def rate_figure(run: RunData) -> go.Figure:
    """Return training speed over the run."""
    made = figure(x="minutes of running time", y="SAE tokens per second", height=300)
    rates = _thinned(run.rates, MOST_RATES)
    made.add_scatter(
        x=[rate.at_seconds / 60 for rate in rates],
        y=[rate.sae_tokens_per_second for rate in rates],
        mode="lines",
        line={"color": "#0072B2"},
        hovertemplate="%{x:.2f} min: %{y:,.0f} tokens/s<extra></extra>",
    )
    made.update_yaxes(rangemode="tozero")
    return made


def _has(row: Row, *metrics: str) -> bool:
    return all(math.isfinite(row.metrics.get(name, math.nan)) for name in metrics) and row.metrics["l0"] > 0


def _describe(row: Row) -> str:
    shown = ("l0", "delta_ce", "ce_loss_score", "explained_variance", "dead_fraction")
    is_trial = row.status != "reference"
    what = f"<b>trial {row.number}</b> {row.architecture}" if is_trial else row.architecture
    lines = [f"{what} {row.sparsity}" + (f", lr {row.lr:.3g}" if is_trial else "")]
    return "<br>".join([*lines, *(f"{name} {row.metrics[name]:.4g}" for name in shown if name in row.metrics)])


def _upper_front(rows: Sequence[Row], metric: str) -> list[Row]:
    """Return the rows that none of the others beats in both: fewer latents, higher metric."""
    return [
        row
        for row in rows
        if not any(
            other.metrics["l0"] <= row.metrics["l0"]
            and other.metrics[metric] >= row.metrics[metric]
            and (other.metrics["l0"], other.metrics[metric]) != (row.metrics["l0"], row.metrics[metric])
            for other in rows
        )
    ]


def _points(run: RunData, row: Row, name: str) -> tuple[list[int], list[float]]:
    kind, key = ("select", name.removeprefix("select:")) if name.startswith("select:") else ("train", name)
    found = [
        (line["tokens"], line[key])
        for line in run.metrics[row.number]
        if line["kind"] == kind and line.get(key) is not None
    ]
    kept = _thinned(found, MOST_CURVE_POINTS // (len(CURVES) * len(run.rows)))
    return [x for x, _ in kept], [y for _, y in kept]


def _thinned(points: Sequence[T], most: int) -> Sequence[T]:
    """Return at most about `most` points, evenly spaced, the last one among them."""
    stride = -(-len(points) // max(2, most))
    return points[(len(points) - 1) % stride :: stride] if stride > 1 else points
