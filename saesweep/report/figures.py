"""The report's other figures: slots, latents, speed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import plotly.graph_objects as go

from saesweep.events import Row
from saesweep.report.curves import thinned
from saesweep.report.data import RunData
from saesweep.report.style import ACCENT, INK, MUTED, PAPER, axis_for, bar_of, figure, style_of, text_on

MAX_RATES = 2_000
NEVER = -10.0
"""Logarithm that stands for a latent which fired on no token."""
_BINS = 5
"""Bars for each factor of ten."""
_MAX_DECADES = 6
_OUTLINES = {"failed": "#a40e26", "interrupted": "#E69F00"}


def timeline_figure(run: RunData) -> go.Figure:
    """Return which trial was in which slot, and when."""
    slots = sorted({(stay.worker, stay.slot) for stay in run.stays})
    line = {slot: number for number, slot in enumerate(slots)}
    has_workers = len({worker for worker, _ in slots}) > 1
    names = [f"{worker}: {slot}" if has_workers else str(slot) for worker, slot in slots]
    made = figure(
        x="minutes of running time",
        y="worker: slot" if has_workers else "slot",
        height=140 + 42 * max(1, len(slots)),
        barmode="overlay",
        bargap=0.15,
    )
    made.update_xaxes(**axis_for([0.0, run.seconds / 60], from_zero=True))
    made.update_yaxes(
        tickvals=list(line.values()), ticktext=names, range=[max(0, len(slots) - 1) + 0.6, -0.6], showgrid=False
    )
    rows = {row.number: row for row in run.rows}
    named: set[str] = set()
    for stay in sorted(run.stays, key=lambda stay: stay.status != "complete"):  # whose colour in the legend is not pale
        row = rows.get(stay.trial)
        architecture = row.architecture if row is not None else "?"
        length = (stay.end_seconds - stay.begin_seconds) / 60
        slot = line[stay.worker, stay.slot]
        outcome = f"{stay.status} after {length:.2f} min in slot {names[slot]}"
        made.add_bar(
            orientation="h",
            x=[length],
            y=[slot],
            base=[stay.begin_seconds / 60],
            name=architecture,
            legendgroup=architecture,
            legendrank=run.legend_rank(architecture),
            showlegend=architecture not in named,
            text=str(stay.trial),
            textposition="inside",
            insidetextanchor="middle",
            insidetextfont={"color": text_on(style_of(architecture).colour) if stay.status == "complete" else INK},
            marker=bar_of(
                architecture,
                opacity=1.0 if stay.status == "complete" else 0.55,
                line={"color": _OUTLINES.get(stay.status, PAPER), "width": 1.5},
            ),
            hovertemplate=f"trial {stay.trial}, {architecture}: {outcome}<extra></extra>",
        )
        named.add(architecture)
    return made


def has_dead_fraction(row: Row) -> bool:
    """Return whether a trial has trained for its whole dead-latent window: before that no latent can be dead."""
    window = row.dead_window_tokens or 0
    return "dead_fraction" in row.metrics and (row.measured_at_tokens or 0) >= window


def dead_figure(run: RunData) -> go.Figure:
    """Return the share of dead latents of each trial when it was last measured."""
    made = figure(x="trial (best first)", y="dead latents, %", height=340)
    rows = [row for row in run.rows if has_dead_fraction(row)]
    for architecture in run.architectures:
        own_rows = [row for row in rows if row.architecture == architecture]
        if own_rows:
            made.add_bar(
                x=[str(row.number) for row in own_rows],
                y=[100 * row.metrics["dead_fraction"] for row in own_rows],
                name=architecture,
                marker=bar_of(architecture, opacity=[1 if r.status == "complete" else 0.5 for r in own_rows]),
                hovertemplate=[
                    f"trial {row.number}: %{{y:.2f}}% silent for {row.dead_window_tokens or 0:,} tokens<extra></extra>"
                    for row in own_rows
                ],
            )
    made.update_xaxes(type="category", categoryorder="array", categoryarray=[str(row.number) for row in rows])
    made.update_yaxes(**axis_for([100 * row.metrics["dead_fraction"] for row in rows], from_zero=True))
    return made


def density_figure(log10_frequencies: Sequence[float]) -> go.Figure:
    """Return the histogram of firing frequencies of the winner's latents; those that never fired have a bar of their own."""
    made = figure(x="share of tokens on which a latent fires", y="latents", height=340)
    fired = [value for value in log10_frequencies if value > NEVER]
    first = math.floor(min(fired, default=-4.0))
    bins = Counter(min(-1, math.floor(value * _BINS)) for value in fired)
    decades = range(first, 1)
    never = first - max(0.8, 0.18 * len(decades))  # its label beside that of the first decade, on a phone too
    places = [never, *((number + 0.5) / _BINS for number in bins)]
    names = ["on no token", *(f"{_share(n / _BINS)} to {_share((n + 1) / _BINS)} of tokens" for n in bins)]
    made.add_bar(
        x=places,
        y=[len(log10_frequencies) - len(fired), *bins.values()],
        width=1 / _BINS,
        marker={"color": [MUTED, *(ACCENT for _ in bins)]},
        customdata=names,
        hovertemplate="%{y} latents fire on %{customdata}<extra></extra>",
    )
    ticks = [*decades[:: -(-len(decades) // _MAX_DECADES)]]
    made.update_xaxes(
        range=[never - 0.3, 0.1],
        tickvals=[never, *ticks],
        ticktext=["never", *(_share(exponent) for exponent in ticks)],
    )
    made.update_yaxes(**axis_for([*bins.values(), len(log10_frequencies) - len(fired)], from_zero=True))
    return made


def _share(exponent: float) -> str:
    """Return a power of ten as a percentage."""
    share = float(f"{100 * 10**exponent:.2g}")
    return f"{share:g}%"


def rate_figure(run: RunData) -> go.Figure:
    """Return training speed over the run."""
    made = figure(x="minutes of running time", y="SAE tokens per second", height=300)
    rates = thinned(run.rates, MAX_RATES)
    made.add_scatter(
        x=[rate.at_seconds / 60 for rate in rates],
        y=[rate.sae_tokens_per_second for rate in rates],
        mode="lines",
        line={"color": ACCENT},
        hovertemplate="%{x:.2f} min: %{y:,.0f} tokens/s<extra></extra>",
    )
    made.update_xaxes(**axis_for([0.0, run.seconds / 60], from_zero=True))
    made.update_yaxes(**axis_for([rate.sae_tokens_per_second for rate in rates], from_zero=True))
    made.update_yaxes(tickformat="~s")
    return made
