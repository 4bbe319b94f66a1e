"""The best at each L0 as lines of text: the same ones at the end of a run, in `saesweep leaderboard` and in the docs."""

from __future__ import annotations

from collections.abc import Sequence

from saesweep.display.columns import Column, fit_columns
from saesweep.display.text import MISSING, label, metric_value
from saesweep.events import MatchedEntry
from saesweep.messages import short_count

_INDENT = "  "


def matched_lines(entries: Sequence[MatchedEntry], *, width: int | None = None) -> list[str]:
    """Return a table of every architecture at every target L0, best first, and each architecture's front over L0.

    Args:
        entries: The run's table.
        width: Characters of a line. Where the table is wider, remarks are shorter and the least important columns are left out.
            None: the natural width.
    """
    if not entries:
        return []
    columns = matched_columns(entries)
    left_out: list[str] = []
    if width is not None:
        columns, left_out = fit_columns(columns, width - len(_INDENT))
    lines = [matched_title(entries)]
    lines.append(_INDENT + _line(columns, [column.heading for column in columns]))
    for i, entry in enumerate(entries):
        if i and entry.target_l0 != entries[i - 1].target_l0:
            lines.append("")
        lines.append(_INDENT + _line(columns, [column.cells[i] for column in columns]))
    if left_out:
        lines.append(f"columns left out on this width: {', '.join(left_out)}")
    return [*lines, "", *front_lines(entries)]


def matched_title(entries: Sequence[MatchedEntry]) -> str:
    """Return the line above the table."""
    return f"best at each L0 ({label(entries[0].goal)} at exactly that L0, ± standard error):"


def matched_columns(entries: Sequence[MatchedEntry]) -> list[Column]:
    """Return the columns of the table, one cell for each entry."""
    goal = entries[0].goal
    others = list(dict.fromkeys(name for entry in entries for name in entry.metrics if name != goal))
    found = [
        _column("L0", [f"{e.target_l0:g}" for e in entries], keep=100, right=True),
        _column("architecture", [e.architecture for e in entries], keep=95),
    ]
    if len({e.hook for e in entries}) > 1:
        found.append(_column("hook", [e.hook for e in entries], keep=92))
    found += [
        _column(label(goal), [_with_error(goal, e.metrics[goal], e.stderr) for e in entries], keep=90),
        _column(
            "behind",
            [MISSING if e.behind is None else _with_error(goal, e.behind, e.behind_stderr) for e in entries],
            keep=80,
        ),
        *(
            _column(label(name), [metric_value(name, e.metrics.get(name)) for e in entries], keep=30, right=True)
            for name in others
        ),
        _column(
            "measured L0",
            [f"{e.l0:.2f} ({100 * (e.l0 / e.target_l0 - 1):+.1f}%)" for e in entries],
            keep=60,
            right=True,
        ),
        _column("trial", [str(e.trial) for e in entries], keep=40, right=True),
    ]
    if any(e.n_complete != e.n_trials for e in entries):
        found.append(_column("finished", [f"{e.n_complete}/{e.n_trials}" for e in entries], keep=20, right=True))
    if any(e.replicates > 1 for e in entries):
        found.append(_column("seeds", [str(e.replicates) for e in entries], keep=15, right=True))
    found += [
        _column("tokens", [short_count(e.tokens) for e in entries], keep=10, right=True),
        _column("", [_remarks(e) for e in entries], keep=85, short_cells=[_remarks(e, short=True) for e in entries]),
    ]
    return found


def front_lines(entries: Sequence[MatchedEntry]) -> list[str]:
    """Return one line per architecture and hook: its goal at every target."""
    by_key: dict[tuple[str, str], list[MatchedEntry]] = {}
    for entry in entries:
        by_key.setdefault((entry.hook, entry.architecture), []).append(entry)
    several = len({hook for hook, _ in by_key}) > 1
    return [
        f"{architecture}{f' at {hook}' if several else ''}: {label(own[0].goal)} "
        + " · ".join(f"{metric_value(e.goal, e.metrics[e.goal])} at L0 {e.target_l0:g}" for e in own)
        for (hook, architecture), own in by_key.items()
    ]


def best_lines(entries: Sequence[MatchedEntry]) -> list[str]:
    """Return one line per target: the best so far, for a view of a run in progress."""
    lines = []
    for entry in entries:
        if entry.is_winner:
            n = sum((e.target_l0, e.hook) == (entry.target_l0, entry.hook) for e in entries)
            value = metric_value(entry.goal, entry.metrics[entry.goal])
            lines.append(
                f"best at L0 {entry.target_l0:g}: {entry.architecture}, {label(entry.goal)} {value} "
                f"({n} architecture{'s' * (n != 1)} finished)"
            )
    return lines


def _remarks(entry: MatchedEntry, *, short: bool = False) -> str:
    remarks = ["best"] * entry.is_winner
    remarks += ["tied" if short else "tied with the best"] * entry.is_tied
    if not entry.is_comparable:
        remarks.append("too far off" if short else "too far from this L0 to compare")
    elif not entry.is_interpolated:
        remarks.append("as measured" if short else "as measured, not interpolated")
    remarks += ["improving" if short else "still improving"] * bool(entry.still_improving)
    return ", ".join(remarks)


def _with_error(name: str, value: float, error: float | None) -> str:
    text = metric_value(name, value)
    return text if error is None else f"{text} ± {metric_value(name, error)}"


def _column(
    title: str, cells: Sequence[str], *, keep: int, right: bool = False, short_cells: Sequence[str] = ()
) -> Column:
    return Column(
        name=title,
        heading=title,
        cells=tuple(cells),
        align="right" if right else "left",
        keep=keep,
        short_cells=tuple(short_cells),
    )


def _line(columns: Sequence[Column], cells: Sequence[str]) -> str:
    padded = [
        cell.rjust(column.width) if column.align == "right" else cell.ljust(column.width)
        for column, cell in zip(columns, cells, strict=True)
    ]
    return "  ".join(padded).rstrip()
