"""The leaderboard as a table: the same one in the live view, at the end of a run, in `saesweep leaderboard` and in the README."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from saesweep.display.columns import (
    BASELINE_MARK,
    BEST_MARK,
    FRONT_MARK,
    Column,
    architecture_counts,
    fit_columns,
    leaderboard_columns,
    row_label,
    states_of,
    table_width,
)
from saesweep.display.text import wraps_softly
from saesweep.events import ReferenceRow, Row
from saesweep.messages import printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

_STYLES = {"training": "cyan", "pruned": "dim", "failed": "red", "waiting": "dim", "reference": "italic"}


def leaderboard_table(
    rows: Sequence[Row],
    *,
    metrics: Sequence[str] = (),
    width: int | None = None,
    bars: bool = False,
    best: int | None = None,
) -> tuple[Table, list[str]]:
    """Return the leaderboard as a Rich table whose cells are never cut, and the names of the columns left out.

    Args:
        rows: Trials, best first.
        metrics: Metric names, most important first. When empty, the usual ones that the rows have.
        width: Characters available. Where the whole table is wider, the least important columns are left out.
            None: its natural width.
        bars: Draw a progress bar for each training trial.
        best: Number of the trial to mark as the best.
    """
    columns = leaderboard_columns(rows, metrics=metrics, bars=bars, best=best)
    left_out: list[str] = []
    if width is not None:
        columns, left_out = fit_columns(columns, width)
    return _table(rows, columns), left_out


def with_references(rows: Sequence[Row], references: Sequence[ReferenceRow]) -> list[Row]:
    """Return one table: each reference after the trials of its rank, those without a rank after all ranked trials."""
    merged = list(rows)
    for reference in references:
        limit = math.inf if reference.rank is None else reference.rank
        ahead = (i for i, row in enumerate(merged) if row.rank is not None and row.rank <= limit)
        merged.insert(1 + max(ahead, default=-1), reference)
    return merged


def visible_rows(rows: Sequence[Row], limit: int) -> list[Row]:
    """Return at most `limit` rows in their order: the trials in training first of all, then the top ones."""
    if len(rows) <= limit:
        return list(rows)
    training = [i for i, row in enumerate(rows) if row.status == "training"]
    # The leader is what people look for: it stays even where the training trials alone would fill the screen.
    chosen = [0, *(i for i in training if i), *(i for i in range(1, len(rows)) if rows[i].status != "training")]
    return [rows[i] for i in sorted(chosen[: max(1, limit)])]


def caption_lines(
    rows: Sequence[Row],
    *,
    hidden: int = 0,
    left_out: Sequence[str] = (),
    best: int | None = None,
    states: Mapping[str, Mapping[str, int]] | None = None,
) -> list[str]:
    """Return the lines below a leaderboard: rows and columns left out, the legend, n per architecture.

    Args:
        rows: What is shown, or more.
        hidden: How many rows are not shown.
        left_out: Names of the columns that are not shown.
        best: Number of the trial that is marked as the best.
        states: How many trials each architecture has in each state, where `rows` are not all of them.
    """
    lines = []
    if hidden:
        lines.append(f"… {hidden} more")
    if left_out:
        lines.append(f"columns left out on this width: {', '.join(left_out)}")
    marks = [f"{BEST_MARK} best"] * any(row.number == best for row in rows)
    marks += [f"{FRONT_MARK} on the Pareto front"] * any(row.on_front for row in rows)
    marks += [f"{BASELINE_MARK} baseline"] * any(row.is_baseline for row in rows)
    if marks:
        lines.append("   ".join(marks))
    trials = [row for row in rows if not isinstance(row, ReferenceRow)]
    lines += [
        f"{row_label(row)}: reference {row.source} ({row.architecture}, d_sae {row.d_sae}); trials are ranked without it"
        for row in rows
        if isinstance(row, ReferenceRow)
    ]
    if trials:
        lines.append(f"trials: {architecture_counts(states_of(trials) if states is None else states)}")
    return lines


def render_text(rows: Sequence[Row], *, metrics: Sequence[str] = (), best: int | None = None) -> str:
    """Return the leaderboard with its caption as plain text of its natural width, without a trailing newline."""
    from rich.console import Console

    table, _ = leaderboard_table(rows, metrics=metrics, best=best)
    width = max(1, table_width(leaderboard_columns(rows, metrics=metrics, best=best)))
    sink = io.StringIO()
    console = Console(file=sink, width=width, force_terminal=False, no_color=True, legacy_windows=False)
    console.print(table)
    lines = [line.rstrip() for line in sink.getvalue().splitlines()]
    return "\n".join([*lines, *caption_lines(rows, best=best)])


def print_leaderboard(
    console: Console, rows: Sequence[Row], *, metrics: Sequence[str] = (), best: int | None = None
) -> None:
    """Print a leaderboard with its caption on a terminal, as wide as the terminal allows."""
    table, left_out = leaderboard_table(rows, metrics=metrics, width=console.width, best=best)
    console.print(table)
    for line in caption_lines(rows, left_out=left_out, best=best):
        soft = wraps_softly(line, console.width)
        console.print(printable(line), markup=False, highlight=False, soft_wrap=soft)


def _table(rows: Sequence[Row], columns: Sequence[Column]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(Text(printable(column.heading)), justify=column.align, no_wrap=True)
    for i, row in enumerate(rows):
        cells: list[RenderableType] = [
            Text(printable(column.cells[i])) for column in columns
        ]  # Text: no markup in user's values
        table.add_row(*cells, style="bold green" if row.on_front else _STYLES.get(row.status, ""))
    return table
