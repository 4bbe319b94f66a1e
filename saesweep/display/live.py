"""The leaderboard and the progress of a run, in place on a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from saesweep.display.plain import Narrator
from saesweep.display.state import RunState
from saesweep.display.summary import closing_lines
from saesweep.display.table import caption_lines, leaderboard_table, print_leaderboard, visible_rows, with_references
from saesweep.display.text import wraps_softly
from saesweep.display.timing import Throttle, Ticker
from saesweep.events import (
    Activity,
    CheckpointSaved,
    Event,
    Note,
    Progressed,
    ReferenceRow,
    Row,
    RunEnded,
    SnapshotSaved,
    TrialEnded,
    TrialMeasured,
    TrialStarted,
)
from saesweep.messages import printable

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

REFRESH_SECONDS = 0.25
TICK_SECONDS = 0.5
_LINES_AROUND = 11
"""Table head 3, captions at most 4, progress 2, the cursor's line, and one to spare."""
_FEWEST_ROWS = 3


def make_console(
    stream: TextIO, env: Mapping[str, str], *, width: int | None = None, height: int | None = None
) -> Console:
    """Return a Rich console for a terminal, without colour where NO_COLOR is set (https://no-color.org)."""
    from rich.console import Console

    colourless = bool(env.get("NO_COLOR"))
    return Console(file=stream, force_terminal=True, no_color=colourless, width=width, height=height, highlight=False)


class LiveDisplay:
    """The leaderboard with its progress, in place; warnings go above it; the final table stays.

    News are drawn at most four times a second; in between a thread redraws twice a second, so that the spinner, the
    seconds and the time left move whatever the main thread waits for.

    Args:
        console: The terminal.
        verbose: Also say what was chosen and why, when trials start, are measured and end, and when checkpoints are saved.
        clock: Returns monotonic seconds.
        ticking: Redraw from a thread of its own.
    """

    def __init__(
        self,
        console: Console,
        *,
        verbose: bool = False,
        clock: Callable[[], float] = time.monotonic,
        ticking: bool = True,
    ) -> None:
        self._console = console
        self._verbose = verbose
        self._throttle = Throttle(REFRESH_SECONDS, clock)
        self._narrator = Narrator(verbose=verbose)
        self._state = RunState(clock)
        self._view = LiveView(console, self._state, ticking=ticking)

    def __call__(self, event: Event) -> None:
        """Show one event."""
        lines = self._narrator.lines(event)
        self._state(event)
        if isinstance(event, RunEnded):
            self._view.stop()  # transient: the view disappears, the final table takes its place
            self._print_end(event)
        elif isinstance(event, (Progressed, Activity)):
            if self._throttle.ready():
                self._view.refresh()
        elif self._verbose or _is_shown(event):
            for line in lines:
                self._print(line, style=_style(event))

    def __enter__(self) -> LiveDisplay:
        """Take the screen: from here on, whatever is printed appears above the live view."""
        self._view.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Restore the cursor and the standard streams."""
        self._view.stop()

    def _print_end(self, event: RunEnded) -> None:
        if event.rows:
            rows = with_references(event.rows, event.references)
            print_leaderboard(self._console, rows, metrics=self._narrator.metrics, best=event.best)
        for line in closing_lines(event, self._narrator.metrics, width=self._console.width):
            self._print(line)

    def _print(self, line: str, style: str = "") -> None:
        from rich.text import Text

        # The style goes on the text, not on print(), which would colour the live view below it as well;
        # soft_wrap keeps paths and commands whole, so that they can be copied.
        soft = wraps_softly(line, self._console.width)
        self._console.print(Text(printable(line), style=style), soft_wrap=soft)


class LiveView:
    """The part of a terminal that is drawn again and again: a run's leaderboard and how far it is.

    Args:
        console: The terminal.
        state: What to show.
        ticking: Redraw from a thread of its own.
    """

    def __init__(self, console: Console, state: RunState, *, ticking: bool = True) -> None:
        from rich.live import Live

        self._console = console
        self._state = state
        self._board: RenderableType | None = None
        self._board_key: object = None
        self._ticker = Ticker(self.refresh, TICK_SECONDS) if ticking else None
        self._live = Live(
            console=console, get_renderable=self._render, transient=True, auto_refresh=False, vertical_overflow="crop"
        )

    def start(self) -> None:
        """Take the screen."""
        self._live.start(refresh=True)
        if self._ticker is not None:
            self._ticker.start()

    def refresh(self) -> None:
        """Draw now."""
        self._live.refresh()

    def stop(self) -> None:
        """Erase the view and give the screen back."""
        if self._ticker is not None:
            self._ticker.stop()
        self._live.stop()

    def _render(self) -> RenderableType:
        from rich.console import Group

        state = self._state
        footer = state.status_lines()
        if not state.rows:
            return Group(*_footer(footer))
        key = (state.version, self._console.size, len(footer))
        if key != self._board_key:
            # Kept as lines: the spinner moves more often than the table changes.
            view = board_view(
                self._console,
                state.rows,
                metrics=state.metrics,
                n_footer=len(footer),
                best=state.best,
                states=state.states,
            )
            self._board, self._board_key = _Drawn(self._console.render_lines(view, pad=False)), key
        assert self._board is not None
        return Group(self._board, *_footer(footer))


class _Drawn:
    """Lines that were rendered before."""

    def __init__(self, lines: Sequence[Sequence[Segment]]) -> None:
        self._lines = lines

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        from rich.segment import Segment

        for line in self._lines:
            yield from line
            yield Segment.line()


def board_view(
    console: Console,
    rows: Sequence[Row],
    *,
    metrics: Sequence[str],
    n_footer: int,
    best: int | None = None,
    states: Mapping[str, Mapping[str, int]] | None = None,
) -> RenderableType:
    """Return a leaderboard cut to the screen: its top, the trials in training, and what was left out.

    Args:
        console: The terminal; its size is asked each time, as the window may have been resized.
        rows: Trials, best first.
        metrics: Metric names, most important first.
        n_footer: Lines below; of more than two, each takes the place of a row.
        best: Number of the trial to mark as the best.
        states: How many trials each architecture has in each state, where `rows` are not all of them.
    """
    from rich.console import Group
    from rich.text import Text

    width, height = console.size
    visible = visible_rows(rows, max(_FEWEST_ROWS, height - _LINES_AROUND - max(0, n_footer - 2)))
    table, left_out = leaderboard_table(visible, metrics=metrics, width=width, bars=True, best=best)
    references = sum(isinstance(row, ReferenceRow) for row in rows)
    total = len(rows) if states is None else references + sum(sum(own.values()) for own in states.values())
    caption = caption_lines(rows, hidden=total - len(visible), left_out=left_out, best=best, states=states)
    return Group(
        table,
        *(Text(printable(line), no_wrap=True, overflow="ellipsis", style="dim") for line in caption),
    )


def _footer(lines: Sequence[str]) -> Iterator[RenderableType]:
    from rich.text import Text

    return (Text(printable(line), no_wrap=True, overflow="ellipsis") for line in lines)


def _is_shown(event: Event) -> bool:
    """Whether a line above the leaderboard says what the leaderboard itself does not."""
    if isinstance(event, TrialEnded):
        return event.status == "failed"
    return not isinstance(event, (TrialStarted, TrialMeasured, CheckpointSaved, SnapshotSaved))


def _style(event: Event) -> str:
    if isinstance(event, Note) and event.level == "warning":
        return "yellow"
    return "red" if isinstance(event, TrialEnded) and event.status == "failed" else ""
