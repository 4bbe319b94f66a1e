"""The best at each L0, as a table and as one curve per architecture: runs with `objective.matched`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import plotly.graph_objects as go

from saesweep.display.matched import matched_columns
from saesweep.display.text import label, metric_value
from saesweep.events import MatchedEntry
from saesweep.report.fronts import annotate_empty
from saesweep.report.style import axis_for, figure, marker, metric_axis, metric_title, style_of
from saesweep.report.tables import Table, row_of

WORDS = (
    "Each architecture's best trial at each target, read off at exactly that L0 from the curve through its trials where "
    "there are three. Errors are standard errors; a trial within two of them of the best is tied with it, by the error of "
    "the difference (behind), which is paired over contexts and usually smaller than that of each value. In the plot bars are two "
    "errors of each value, and those of one target stand side by side."
)
_APART = 0.012
"""Between two lines at one target, as a share of the axis: markers and bars would cover each other."""
_MOST_APART = 0.35
"""Between the first and the last line, as a share of the way to the nearest other target."""


def matched_table(entries: Sequence[MatchedEntry]) -> Table:
    """Return the table of every architecture at every target L0, best first."""
    columns = matched_columns(entries)
    return Table(
        heads=[column.heading for column in columns],
        rows=[
            row_of(
                [column.cells[i] for column in columns],
                "best" if entry.is_winner else "",
                swatches={1: entry.architecture},
            )
            for i, entry in enumerate(entries)
        ],
        text_columns={i for i, column in enumerate(columns) if column.align == "left"},
    )


def matched_figure(entries: Sequence[MatchedEntry], architectures: Sequence[str]) -> go.Figure:
    """Return the goal against L0, a line per architecture and hook, with two standard errors as bars.

    Args:
        entries: The run's table.
        architectures: All of the run, in its order.
    """
    goal = entries[0].goal
    made = figure(x=metric_title("l0"), y=f"{metric_title(goal)} at that L0")
    shown = [entry for entry in entries if entry.is_comparable]
    made.update_xaxes(**axis_for([entry.target_l0 for entry in entries], log=True))
    targets = sorted({entry.target_l0 for entry in entries})
    made.update_xaxes(tickvals=targets, ticktext=[f"{target:g}" for target in targets])
    ends = [entry.metrics[goal] + sign * 2 * (entry.stderr or 0.0) for entry in shown for sign in (-1, 1)]
    made.update_yaxes(**metric_axis(goal, ends))
    lines = list(dict.fromkeys((entry.architecture, entry.hook) for entry in shown))
    lines.sort(key=lambda line: architectures.index(line[0]))
    places = dict(zip(lines, _side_by_side(len(lines), targets), strict=True))
    hooks = list(dict.fromkeys(entry.hook for entry in entries))
    dashes = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
    for architecture in architectures:
        for number, hook in enumerate(hooks):
            own = [e for e in entries if (e.architecture, e.hook) == (architecture, hook) and e.is_comparable]
            if not own:
                continue
            own.sort(key=lambda entry: entry.target_l0)
            style = style_of(architecture)
            dash = style.dash if len(hooks) == 1 else dashes[number % len(dashes)]
            made.add_scatter(
                x=[entry.target_l0 * places[architecture, hook] for entry in own],
                y=[entry.metrics[goal] for entry in own],
                error_y={"type": "data", "array": [2 * (entry.stderr or 0.0) for entry in own], "thickness": 1},
                mode="lines+markers",
                name=architecture + (f" at {hook}" if len(hooks) > 1 else ""),
                line={"color": style.colour, "width": 1.5, "dash": dash},
                marker=marker(architecture),
                text=[_describe(entry) for entry in own],
                hovertemplate="%{text}<extra></extra>",
            )
    if not shown:
        annotate_empty(made, "No trial ended near its target L0.")
    return made


def _side_by_side(n_lines: int, targets: Sequence[float]) -> list[float]:
    """Return the factors that the targets are multiplied by for each line, around 1."""
    whole = math.log(max(2.0, targets[-1] / targets[0]))
    nearest = min((math.log(b / a) for a, b in itertools.pairwise(targets)), default=whole)
    apart = min(_APART * whole, _MOST_APART * nearest / max(1, n_lines - 1))
    return [math.exp((number - (n_lines - 1) / 2) * apart) for number in range(n_lines)]


def _describe(entry: MatchedEntry) -> str:
    lines = [
        f"<b>{entry.architecture}, trial {entry.trial}</b>",
        f"{label(entry.goal)} {metric_value(entry.goal, entry.metrics[entry.goal])} at L0 {entry.target_l0:g}",
        f"measured L0 {entry.l0:.2f}",
    ]
    return "<br>".join(lines)
