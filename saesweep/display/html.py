"""The leaderboard and what a run found as HTML, for notebooks. Colours come from the notebook, light or dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from saesweep.display.columns import Column, leaderboard_columns
from saesweep.display.matched import front_lines, matched_columns, matched_title
from saesweep.display.summary import result_lines
from saesweep.display.table import caption_lines, with_references
from saesweep.events import MatchedEntry, ReferenceRow, Row
from saesweep.messages import printable

_SHOWN_ROWS = 50


def leaderboard_html(
    rows: Sequence[Row], *, metrics: Sequence[str] = (), best: int | None = None, bars: bool = False
) -> str:
    """Return a leaderboard with its caption; of a long one its top.

    Args:
        rows: Trials and published SAEs, best first.
        metrics: Metric names, most important first.
        best: Number of the trial to mark as the best.
        bars: Draw a progress bar for each training trial.
    """
    shown = rows[:_SHOWN_ROWS]
    columns = leaderboard_columns(shown, metrics=metrics, bars=bars, best=best)
    caption = caption_lines(rows, hidden=len(rows) - len(shown), best=best)
    return _table(columns, [row.on_front for row in shown]) + lines_html(caption)


def matched_html(entries: Sequence[MatchedEntry]) -> str:
    """Return the best at each L0 as a table, the winners in bold; empty without matched L0."""
    if not entries:
        return ""
    table = _table(matched_columns(entries), [entry.is_winner for entry in entries])
    return lines_html([matched_title(entries)]) + table + lines_html(front_lines(entries))


def _table(columns: Sequence[Column], is_bold: Sequence[bool]) -> str:
    head = "".join(f"<th{_align(column)}>{_text(column.heading)}</th>" for column in columns)
    weights = [' style="font-weight:bold"' if bold else "" for bold in is_bold]
    body = "".join(
        f"<tr{weight}>{''.join(f'<td{_align(c)}>{_text(c.cells[i])}</td>' for c in columns)}</tr>"
        for i, weight in enumerate(weights)
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def lines_html(lines: Sequence[str]) -> str:
    """Return lines of text, blanks kept."""
    return (
        f'<pre style="margin:0;white-space:pre-wrap">{_text(chr(10).join(lines), breaks=False)}</pre>' if lines else ""
    )


def result_html(
    rows: Sequence[Row],
    *,
    references: Sequence[ReferenceRow],
    metrics: Sequence[str],
    best: int | None,
    best_dir: str | None,
    test_metrics: Mapping[str, float],
    notes: Sequence[str],
    matched: Sequence[MatchedEntry],
    resume_command: str | None,
) -> str:
    """Return the leaderboard of a run that has ended and what it found."""
    table = leaderboard_html(with_references(rows, references), metrics=metrics, best=best) if rows else ""
    lines = result_lines(rows, best=best, best_dir=best_dir, test_metrics=test_metrics, notes=notes, metrics=metrics)
    if resume_command is not None:
        lines.append(f"interrupted; resume with: {resume_command}")
    return f"<div>{table}{matched_html(matched)}{lines_html(lines)}</div>"


def _text(text: str, *, breaks: bool = True) -> str:
    safe = escape(printable(text))
    return safe.replace("\n", "<br>") if breaks else safe


def _align(column: Column) -> str:
    return f' style="text-align:{column.align}"'
