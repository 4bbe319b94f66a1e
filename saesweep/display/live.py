"""A leaderboard that updates in place on a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from saesweep.display.columns import bar
from saesweep.display.matched import best_lines
from saesweep.display.narrator import Narrator
from saesweep.display.summary import closing_lines, progress_parts
from saesweep.display.table import caption_lines, leaderboard_table, print_leaderboard, visible_rows, with_references
from saesweep.display.throttle import Throttle
from saesweep.events import (
    BlockDone,
    CheckpointSaved,
    Event,
    Note,
    ReferenceRow,
    Row,
    RunEnded,
    RunStarted,
    SnapshotSaved,
    TrialEnded,
    TrialMeasured,
    TrialStarted,
)
from saesweep.messages import printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

REFRESH_SECONDS = 0.25
_LINES_AROUND = 11
"""Table head 3, captions at most 4, progress 2, the cursor's line, and one to spare."""
_FEWEST_ROWS = 3
_PROGRESS_CELLS = 16


def make_console(
    stream: TextIO, env: Mapping[str, str], *, width: int | None = None, height: int | None = None
) -> Console:
    """Return a Rich console for a terminal, without colour where NO_COLOR is set (https://no-color.org)."""
    from rich.console import Console

    colourless = bool(env.get("NO_COLOR"))
    return Console(file=stream, force_terminal=True, no_color=colourless, width=width, height=height, highlight=False)


class LiveDisplay:
    """Redraws the leaderboard at most four times a second; warnings go above it; the final table stays.

    Args:
        console: The terminal.
        verbose: Also say when trials start, are measured and end, and when checkpoints are saved.
        clock: Returns monotonic seconds.
    """

    def __init__(self, console: Console, *, verbose: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        from rich.live import Live

        self._console = console
        self._verbose = verbose
        self._throttle = Throttle(REFRESH_SECONDS, clock)
        self._narrator = Narrator()
        # auto_refresh would redraw from a thread of its own in the middle of a training step; events are often enough.
        self._live = Live(console=console, transient=True, auto_refresh=False, vertical_overflow="crop")

    def __call__(self, event: Event) -> None:
        """Show one event."""
        lines = self._narrator.lines(event)
        if isinstance(event, BlockDone):
            if self._throttle.ready():
                self._live.update(self._view(event), refresh=True)
        elif isinstance(event, RunEnded):
            self._live.stop()  # transient: the view disappears, the final table takes its place
            self._print_end(event)
        elif self._verbose or _is_shown(event):
            for line in lines:
                self._print(line, style=_style(event))
        if isinstance(event, RunStarted):
            self._live.update("the leaderboard appears after the first block of training", refresh=True)

    def __enter__(self) -> LiveDisplay:
        """Take the screen: from here on, whatever is printed appears above the live view."""
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Restore the cursor and the standard streams."""
        self._live.stop()

    def _view(self, event: BlockDone) -> RenderableType:
        parts = progress_parts(event, self._narrator.trials)
        progress = bar(event.sae_tokens, event.expected_sae_tokens, _PROGRESS_CELLS)
        footer: tuple[str, ...] = (f"{progress} {' · '.join(parts[:3])}", " · ".join(parts[3:]))
        footer = (*best_lines(event.matched), *footer)
        rows = with_references(event.rows, event.references)
        return board_view(self._console, rows, metrics=self._narrator.metrics, footer=footer, states=event.states)

    def _print_end(self, event: RunEnded) -> None:
        if event.rows:
            rows = with_references(event.rows, event.references)
            print_leaderboard(self._console, rows, metrics=self._narrator.metrics)
        for line in closing_lines(event, self._narrator.metrics):
            self._print(line)

    def _print(self, line: str, style: str = "") -> None:
        from rich.text import Text

        # The style goes on the text, not on print(), which would colour the live view below it as well;
        # soft_wrap keeps paths and commands whole, so that they can be copied.
        self._console.print(Text(printable(line), style=style), soft_wrap=True)


def board_view(
    console: Console,
    rows: Sequence[Row],
    *,
    metrics: Sequence[str],
    footer: Sequence[str],
    states: Mapping[str, Mapping[str, int]] | None = None,
) -> RenderableType:
    """Return a leaderboard cut to the screen: its top, the trials in training, what was left out, and a footer.

    Args:
        console: The terminal; its size is asked each time, as the window may have been resized.
        rows: Trials, best first.
        metrics: Metric names, most important first.
        footer: Lines below; of more than two, each takes the place of a row.
        states: How many trials each architecture has in each state, where `rows` are not all of them.
    """
    from rich.console import Group
    from rich.text import Text

    width, height = console.size
    visible = visible_rows(rows, max(_FEWEST_ROWS, height - _LINES_AROUND - max(0, len(footer) - 2)))
    table, left_out = leaderboard_table(visible, metrics=metrics, width=width, bars=True)
    references = sum(isinstance(row, ReferenceRow) for row in rows)
    total = len(rows) if states is None else references + sum(sum(own.values()) for own in states.values())
    caption = caption_lines(rows, hidden=total - len(visible), left_out=left_out, states=states)
    return Group(
        table,
        *(Text(printable(line), no_wrap=True, overflow="ellipsis", style="dim") for line in caption),
        *(Text(printable(line), no_wrap=True, overflow="ellipsis") for line in footer),
    )


def _is_shown(event: Event) -> bool:
    """Whether a line above the leaderboard says what the leaderboard itself does not."""
    if isinstance(event, TrialEnded):
        return event.status == "failed"
    return not isinstance(event, (TrialStarted, TrialMeasured, CheckpointSaved, SnapshotSaved))


def _style(event: Event) -> str:
    if isinstance(event, Note) and event.level == "warning":
        return "yellow"
    return "red" if isinstance(event, TrialEnded) and event.status == "failed" else ""
