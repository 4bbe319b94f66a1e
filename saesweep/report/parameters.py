"""Searched parameters as figures: which mattered, by Optuna's importance, and parallel coordinates of the finished trials.

Parallel coordinates have one axis for each searched parameter and goal, and a line for each trial.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
import plotly.graph_objects as go

from saesweep.display.text import label, metric_value, parameter_label, setting
from saesweep.events import Row
from saesweep.experiment import ARCHITECTURE
from saesweep.report.data import RunData
from saesweep.report.fronts import goals_in_words, goals_of
from saesweep.report.style import GRID, INK, axis_for, figure, log_ticks, style_of
from saesweep.specs import LOG_METRICS
from saesweep.study import MIN_TRIALS, importances, load_plain_study

_GOAL_COLOURS = ("#4C5866", "#A7B0BA", "#7A5C99", "#C3A6DB")
"""Of no architecture: the bars belong to goals."""


def importance_figure(run: RunData) -> go.Figure | None:
    """Return the importances of the searched parameters; None without a study or with too few finished trials."""
    if not run.directory.study_file.exists():
        return None
    study = load_plain_study(str(run.directory.study_file), run.board.name)
    done = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    if len(done) < MIN_TRIALS or not any(len(trial.params) > 0 for trial in done):
        return None
    made = figure(x="share of the importance", y="", barmode="group")
    found = importances(study, run.board.goals, {row.number: row.architecture for row in run.complete})
    names: dict[str, None] = {}
    for index, goal in enumerate(run.board.goals):
        shares = {
            parameter_label(path) if item.group == "all trials" else f"{parameter_label(path)} ({item.group})": share
            for item in reversed(found)
            if item.goal == goal
            for path, share in reversed(list(item.shares.items()))
        }
        names |= dict.fromkeys(shares)
        made.add_bar(
            orientation="h",
            y=list(shares),
            x=list(shares.values()),
            name=goals_in_words(run)[index],
            marker={"color": _GOAL_COLOURS[index % len(_GOAL_COLOURS)]},
            hovertemplate="%{y}: %{x:.2f}<extra></extra>",
        )
    if not names:
        return None
    made.update_layout(height=160 + 44 * len(names), margin={"l": 20})
    made.update_xaxes(**axis_for([0.0, 1.0], from_zero=True))
    return made


_TICKS = 5
_AXIS_WIDTH = 84
"""Pixels that an axis with its labels needs: on a phone the figure scrolls where it has more of them than have room."""
_NEAR = 0.07
"""Share of an axis within which two labels would overlap."""


@dataclass(frozen=True)
class _Axis:
    """One vertical axis; a trial that does not have the parameter has no place on it."""

    title: str
    places: Mapping[int, float]
    """From a trial's number to its height, 0 to 1."""
    texts: Mapping[int, str]
    ticks: Sequence[tuple[float, str]]


def parallel_figure(run: RunData) -> go.Figure | None:
    """Return the figure; None where nothing was searched or fewer than two trials have finished.

    A parameter has one axis, whatever its ranges by condition. Lines pass by the axes of parameters that their architecture
    does not have.
    """
    rows = run.complete
    paths = [path for path in _paths(rows) if len({repr(row.params[path]) for row in rows if path in row.params}) > 1]
    if len(rows) < 2 or not paths:
        return None
    axes = [_axis(_short(path), {row.number: row.params[path] for row in rows if path in row.params}) for path in paths]
    for metric in goals_of(run):
        values = {row.number: row.metrics[metric] for row in rows if math.isfinite(row.metrics.get(metric, math.nan))}
        axes.append(_axis(label(metric), values, metric))
    made = figure(x="", y="", height=460)
    made.update_layout(margin={"l": 40, "r": 60, "t": 88, "b": 24}, meta={"min_width": _AXIS_WIDTH * len(axes)})
    made.update_xaxes(visible=False, range=[-0.25, len(axes) - 0.75], fixedrange=True)
    made.update_yaxes(visible=False, range=[-0.05, 1.08], fixedrange=True)
    for i, axis in enumerate(axes):
        made.add_shape(type="line", x0=i, x1=i, y0=0, y1=1, line={"color": GRID, "width": 2}, layer="below")
        made.add_annotation(x=i, y=1.04, text=f"<b>{axis.title}</b>", showarrow=False, yanchor="bottom", textangle=0)
        for place, text in axis.ticks:
            made.add_annotation(
                x=i,
                y=place,
                text=text,
                showarrow=False,
                xanchor="left",
                xshift=5,
                font={"size": 12},
                bgcolor="var(--veil)",
            )
    named: set[str] = set()
    for row in sorted(rows, key=lambda row: (row.number == run.board.best, row.number)):
        own = [(i, axis.places[row.number]) for i, axis in enumerate(axes) if row.number in axis.places]
        texts = [f"{axis.title} {axis.texts[row.number]}" for axis in axes if row.number in axis.places]
        is_best = row.number == run.board.best
        style = style_of(row.architecture)
        made.add_scatter(
            x=[x for x, _ in own],
            y=[y for _, y in own],
            mode="lines+markers",
            name=row.architecture,
            legendgroup=row.architecture,
            legendrank=run.legend_rank(row.architecture),
            showlegend=row.architecture not in named,
            line={"color": style.colour, "width": 3.5 if is_best else 1.4},
            marker={"size": 6, "symbol": style.symbol, "line": {"color": INK, "width": 1 if is_best else 0}},
            opacity=1.0 if is_best else 0.85,
            hovertemplate=f"<b>trial {row.number}</b> {row.architecture}<br>{'<br>'.join(texts)}<extra></extra>",
        )
        named.add(row.architecture)
    return made


def _paths(rows: Sequence[Row]) -> list[str]:
    """Return the searched parameters, the architecture first: it is what the others depend on."""
    found = list(dict.fromkeys(path for row in rows for path in row.params))
    return sorted(found, key=lambda path: path != ARCHITECTURE)


def _short(path: str) -> str:
    name = parameter_label(path).removeprefix("sae.")
    return name.replace("_", "_<br>", 1) if len(path) > 14 else name


def _axis(title: str, values: Mapping[int, Any], metric: str | None = None) -> _Axis:
    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values.values()):
        return _numbers(title, values, metric)
    names = list(dict.fromkeys(map(str, values.values())))
    step = 1 / max(1, len(names) - 1)
    places = {name: i * step for i, name in enumerate(names)}
    return _Axis(
        title,
        {number: places[str(value)] for number, value in values.items()},
        {number: str(value) for number, value in values.items()},
        [(place, name) for name, place in places.items()],
    )


def _numbers(title: str, values: Mapping[int, float], metric: str | None) -> _Axis:
    low, high = min(values.values(), default=0.0), max(values.values(), default=1.0)
    log = low > 0 and (high / low > 4 if metric is None else metric in LOG_METRICS)

    def text(value: float) -> str:
        return setting(value) if metric is None else metric_value(metric, value)

    def scaled(value: float) -> float:
        if high <= low:
            return 0.5
        return math.log(value / low) / math.log(high / low) if log else (value - low) / (high - low)

    few = sorted(set(values.values()))
    if metric is None and len(few) <= _TICKS:
        ticks = [(scaled(value), text(value)) for value in few]
        return _Axis(title, *_places(values, scaled, text), ticks)
    ends = [(scaled(value), text(value)) for value in dict.fromkeys((low, high))]
    if high <= low:
        return _Axis(title, *_places(values, scaled, text), ends)
    # The ends as they are, since lines begin there, and round numbers that keep their distance from them.
    between = log_ticks(math.log10(low), math.log10(high)) if log else _round_between(low, high)
    if all(isinstance(known, int) for known in values.values()):
        between = [value for value in between if value == int(value)]
    ticks = [(scaled(value), f"{value:g}") for value in between if _NEAR < scaled(value) < 1 - _NEAR]
    return _Axis(title, *_places(values, scaled, text), [ends[0], *ticks, ends[1]])


def _round_between(low: float, high: float) -> list[float]:
    """Return round numbers between two others, at most as many as an axis has ticks."""
    rough = (high - low) / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough)
    return [float(f"{step * n:.6g}") for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _places(
    values: Mapping[int, float], scaled: Callable[[float], float], text: Callable[[float], str]
) -> tuple[dict[int, float], dict[int, str]]:
    return {n: scaled(value) for n, value in values.items()}, {n: text(value) for n, value in values.items()}
