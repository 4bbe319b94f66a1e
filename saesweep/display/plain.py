"""Events as lines of text, and the display of such lines for logs, pipes, notebooks and CI.

A narrator has the memory that this needs: the run, and what each trial is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TextIO

from saesweep.display.summary import (
    closing_lines,
    metrics_text,
    opening_lines,
    progress_parts,
    trial_label,
    trial_start_line,
    worker_line,
    worker_lines,
)
from saesweep.display.table import render_text, with_references
from saesweep.display.text import duration, encodable, percent
from saesweep.display.timing import Throttle
from saesweep.events import (
    Activity,
    BlockDone,
    CheckpointSaved,
    Event,
    Note,
    Progressed,
    RunEnded,
    RunStarted,
    SnapshotSaved,
    TrialEnded,
    TrialMeasured,
    TrialStarted,
    WorkerNews,
)
from saesweep.messages import short_count


class Narrator:
    """Turns the events of one run into lines. It must see every event.

    Args:
        verbose: Also say what was chosen and why.
    """

    def __init__(self, *, verbose: bool = False) -> None:
        self._verbose = verbose
        self.metrics: tuple[str, ...] = ()
        self.trials: int | None = None
        self._total_tokens = 0
        self._labels: dict[int, str] = {}

    def lines(self, event: Event) -> list[str]:
        """Return what to say about an event; none for blocks and for the end of the run, which are tables."""
        if isinstance(event, RunStarted):
            self.metrics, self.trials, self._total_tokens = event.metrics, event.trials, event.total_tokens
            return opening_lines(event, verbose=self._verbose)
        if isinstance(event, RunEnded) and event.metrics:
            self.metrics = event.metrics
        if isinstance(event, Note):
            return [f"warning: {event.message}" if event.level == "warning" else event.message]
        if isinstance(event, TrialStarted):
            self._labels[event.number] = trial_label(event.number, event.architecture, event.sparsity)
            return [trial_start_line(event)]
        if isinstance(event, TrialMeasured):
            return [f"{self._where(event.number, event.tokens)}: {metrics_text(event.metrics, self.metrics)}"]
        if isinstance(event, TrialEnded):
            reason = f": {event.reason}" if event.reason else ""
            return [f"{self._where(event.number, event.tokens, event.status)}{reason}"]
        if isinstance(event, CheckpointSaved):
            return [f"checkpoint at {short_count(event.stream_tokens)} tokens of the stream, {event.seconds:.1f} s"]
        if isinstance(event, SnapshotSaved):
            return [f"{self._where(event.number, event.tokens)}: {event.path}"]
        if isinstance(event, BlockDone):
            for row in event.rows:  # a resumed run's trials started in an earlier process
                self._labels[row.number] = trial_label(row.number, row.architecture, row.sparsity)
        return []

    def _where(self, number: int, tokens: int, verb: str = "") -> str:
        share = f" ({percent(tokens, self._total_tokens)})" if self._total_tokens else ""
        label = self._labels.get(number, f"trial {number}")
        return f"{label}{' ' * bool(verb)}{verb} at {short_count(tokens)} tokens{share}"


PROGRESS_SECONDS = 60.0
_VERBOSE_ONLY = (TrialStarted, CheckpointSaved, SnapshotSaved)


class PlainDisplay:
    """Writes what happens before training, a line per measurement and per trial's end, at most one progress line a minute, the final table.

    Args:
        stream: Where the lines go; flushed after each.
        verbose: Also say what was chosen and why, when trials start and checkpoints are saved.
        clock: Returns monotonic seconds.
    """

    def __init__(self, stream: TextIO, *, verbose: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._verbose = verbose
        self._clock = clock
        self._began = clock()
        self._progress = Throttle(PROGRESS_SECONDS, clock)
        self._activity = Throttle(PROGRESS_SECONDS, clock)
        self._narrator = Narrator(verbose=verbose)
        self._states: Mapping[str, Mapping[str, int]] = {}
        self._workers: dict[int, WorkerNews] = {}
        self._has_started = False
        self._last_message = ""

    def __call__(self, event: Event) -> None:
        """Write the lines of one event."""
        lines = self._narrator.lines(event)
        self._has_started = self._has_started or isinstance(event, RunStarted)
        if isinstance(event, RunEnded):
            self._end(event)
        elif isinstance(event, Progressed):
            if isinstance(event, BlockDone):
                self._states = event.states
            if self._progress.ready():
                self._print(" · ".join(progress_parts(event, self._states, self._narrator.trials)))
                for line in worker_lines(self._workers):
                    self._print(line)
        elif isinstance(event, WorkerNews):
            self._workers[event.worker] = event
            if event.state == "gone":  # how the others are, is said with the progress
                self._print(worker_line(event))
        elif isinstance(event, Activity):
            self._print_activity(event)
        elif self._verbose or not isinstance(event, _VERBOSE_ONLY):
            for line in lines:
                self._print(line)

    def __enter__(self) -> PlainDisplay:
        """Return itself; lines need no set-up."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to give back."""

    def _print_activity(self, event: Activity) -> None:
        """Say what is done before training as it begins; later only what would else be a long silence."""
        if event.message == self._last_message or (self._has_started and not self._activity.ready()):
            return
        self._last_message = event.message
        self._print(event.message)

    def _end(self, event: RunEnded) -> None:
        metrics = self._narrator.metrics
        if event.rows:
            self._write(
                f"\n{render_text(with_references(event.rows, event.references), metrics=metrics, best=event.best)}\n\n"
            )
        for line in closing_lines(event, metrics):
            self._write(line + "\n")

    def _print(self, line: str) -> None:
        self._write(f"[{duration(self._clock() - self._began):>7}] {line}\n")

    def _write(self, text: str) -> None:
        self._stream.write(encodable(text, getattr(self._stream, "encoding", None)))
        self._stream.flush()
