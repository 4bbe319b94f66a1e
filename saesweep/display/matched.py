"""The best at each L0 as lines of text: the same ones at the end of a run, in `saesweep leaderboard` and in the docs."""

from __future__ import annotations

from collections.abc import Sequence

from saesweep.display.columns import Column
from saesweep.display.text import MISSING, label, metric_value
from saesweep.events import MatchedEntry
from saesweep.messages import short_count


def matched_lines(entries: Sequence[MatchedEntry]) -> list[str]:
    """Return a table of every architecture at every target L0, best first, and each architecture's front over L0."""
    if not entries:
        return []
    columns = matched_columns(entries)
    lines = [f"best at each L0 ({label(entries[0].goal)} at exactly that L0, ± standard error):"]
    lines.append("  " + _line(columns, [column.heading for column in columns]))
    for i, entry in enumerate(entries):
        if i and entry.target_l0 != entries[i - 1].target_l0:
            lines.append("")
        lines.append("  " + _line(columns, [column.cells[i] for column in columns]))
    return [*lines, "", *front_lines(entries)]


def matched_columns(entries: Sequence[MatchedEntry]) -> list[Column]:
    """Return the columns of the table, one cell for each entry."""
    goal = entries[0].goal
    others = list(dict.fromkeys(name for entry in entries for name in entry.metrics if name != goal))
    found = [
        _column("L0", [f"{e.target_l0:g}" for e in entries], right=True),
        _column("architecture", [e.architecture for e in entries]),
    ]
    if len({e.hook for e in entries}) > 1:
        found.append(_column("hook", [e.hook for e in entries]))
    found += [
        _column(label(goal), [_with_error(goal, e.metrics[goal], e.stderr) for e in entries]),
        _column(
            "behind", [MISSING if e.behind is None else _with_error(goal, e.behind, e.behind_stderr) for e in entries]
        ),
        *(
            _column(label(name), [metric_value(name, e.metrics.get(name)) for e in entries], right=True)
            for name in others
        ),
        _column("measured L0", [f"{e.l0:.2f} ({100 * (e.l0 / e.target_l0 - 1):+.1f}%)" for e in entries], right=True),
        _column("trial", [str(e.trial) for e in entries], right=True),
        _column("n", [f"{e.n_complete}/{e.n_trials}" for e in entries], right=True),
        _column("seeds", [str(e.replicates) for e in entries], right=True),
        _column("tokens", [short_count(e.tokens) for e in entries], right=True),
        _column("", [_remarks(e) for e in entries]),
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


def _remarks(entry: MatchedEntry) -> str:
    remarks = ["best"] * entry.is_winner + ["tied with the best"] * entry.is_tied
    if not entry.is_comparable:
        remarks.append("too far from this L0 to compare")
    elif not entry.is_interpolated:
        remarks.append("as measured, not interpolated")
    remarks += ["still improving"] * bool(entry.still_improving)
    return ", ".join(remarks)


def _with_error(name: str, value: float, error: float | None) -> str:
    text = metric_value(name, value)
    return text if error is None else f"{text} ± {metric_value(name, error)}"


def _column(title: str, cells: Sequence[str], *, right: bool = False) -> Column:
    return Column(name=title, heading=title, cells=tuple(cells), align="right" if right else "left")


def _line(columns: Sequence[Column], cells: Sequence[str]) -> str:
    padded = [
        cell.rjust(column.width) if column.align == "right" else cell.ljust(column.width)
        for column, cell in zip(columns, cells, strict=True)
    ]
    return "  ".join(padded).rstrip()
