"""A run in a Jupyter notebook (VS Code and Colab included): one output of the cell, drawn anew in place."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Any, Protocol

from saesweep.display.html import leaderboard_html, lines_html, matched_html
from saesweep.display.plain import Narrator
from saesweep.display.state import RunState
from saesweep.display.summary import closing_lines
from saesweep.display.table import with_references
from saesweep.display.timing import Throttle, Ticker
from saesweep.events import (
    Activity,
    CheckpointSaved,
    Event,
    Progressed,
    RunEnded,
    SnapshotSaved,
    TrialEnded,
    TrialMeasured,
    TrialStarted,
)

REFRESH_SECONDS = 1.0
_MAX_LINES = 20
_WITH_LEADERBOARD = (TrialStarted, TrialMeasured, TrialEnded, CheckpointSaved, SnapshotSaved)


class Output(Protocol):
    """An output of a notebook cell that can be drawn anew."""

    def update(self, html: str) -> None:
        """Draw."""


class NotebookDisplay:
    """The leaderboard with its progress in one output of the cell, drawn at most once a second; its end stays.

    Args:
        output: Where to draw; a new output of the running cell when None.
        verbose: Also say what was chosen and why.
        clock: Returns monotonic seconds.
        ticking: Redraw from a thread of its own, so that time passes on the page whatever the cell waits for.
    """

    def __init__(
        self,
        output: Output | None = None,
        *,
        verbose: bool = False,
        clock: Callable[[], float] = time.monotonic,
        ticking: bool = True,
    ) -> None:
        self._output = output
        self._narrator = Narrator(verbose=verbose)
        self._state = RunState(clock)
        self._throttle = Throttle(REFRESH_SECONDS, clock)
        self._ticker = Ticker(self._draw, REFRESH_SECONDS) if ticking else None
        self._lines: list[str] = []
        self._is_over = False

    def __call__(self, event: Event) -> None:
        """Show one event."""
        lines = self._narrator.lines(event)
        self._state(event)
        if isinstance(event, RunEnded):
            self._end(event)
            return
        if lines and (not isinstance(event, _WITH_LEADERBOARD) or _has_failed(event)):
            self._lines = [*self._lines, *lines][-_MAX_LINES:]
        if not isinstance(event, (Progressed, Activity)) or self._throttle.ready():
            self._draw()

    def __enter__(self) -> NotebookDisplay:
        """Make the output."""
        if self._output is None:
            self._output = _CellOutput()
        self._draw()
        if self._ticker is not None:
            self._ticker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Draw no more; what stands there stays."""
        if self._ticker is not None:
            self._ticker.stop()

    def _draw(self) -> None:
        if self._is_over or self._output is None:
            return
        state = self._state
        table = leaderboard_html(state.rows, metrics=state.metrics, best=state.best, bars=True) if state.rows else ""
        self._output.update(f"<div>{lines_html(self._lines)}{table}{lines_html(state.status_lines())}</div>")

    def _end(self, event: RunEnded) -> None:
        self._is_over = True
        if self._output is None:
            return
        rows = with_references(event.rows, event.references)
        metrics = self._narrator.metrics
        table = leaderboard_html(rows, metrics=metrics, best=event.best) if rows else ""
        lines = closing_lines(replace(event, matched=()), metrics)  # which is a table of its own
        found = f"{table}{matched_html(event.matched)}{lines_html(lines)}"
        self._output.update(f"<div>{lines_html(self._lines)}{found}</div>")


class _CellOutput:
    """An output of the running cell."""

    def __init__(self) -> None:
        from IPython.display import HTML, display

        self._html: Any = HTML
        self._handle: Any = display(HTML("<div></div>"), display_id=True)

    def update(self, html: str) -> None:
        self._handle.update(self._html(html))


def _has_failed(event: Event) -> bool:
    return isinstance(event, TrialEnded) and event.status == "failed"
