"""What a run looks like now, put together from its events: the one source of every view that updates in place."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from saesweep.display.columns import bar, states_of
from saesweep.display.matched import best_lines
from saesweep.display.summary import progress_parts, worker_lines
from saesweep.display.table import with_references
from saesweep.display.text import duration
from saesweep.events import (
    Activity,
    BlockDone,
    BlockProgress,
    Event,
    MatchedEntry,
    Progressed,
    ReferenceRow,
    Row,
    RunStarted,
    TrialEnded,
    TrialStarted,
    WorkerNews,
)
from saesweep.messages import short_count

SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_SPINS_PER_SECOND = 8
_PROGRESS_CELLS = 16
_TOKENS_SECONDS = 2.0
"""The bars of the trials move this often within a block: drawing a table takes time from training."""
_LONG_SECONDS = 2.0
"""What takes longer than this shows its seconds."""


class RunState:
    """The state of one run. It must see every event.

    Args:
        clock: Returns monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._rows: tuple[Row, ...] = ()
        self._began: dict[int, Row] = {}
        self._total_tokens = 0
        self._progress: Progressed | None = None
        self._progress_at = self._doing_since = self._tokens_at = clock()
        self._doing: Activity | None = None
        self._has_started = False
        self.rows: tuple[Row, ...] = ()
        """Trials and published SAEs, best first, with the tokens that the latest news speak of."""
        self.states: Mapping[str, Mapping[str, int]] = {}
        """How many of all trials each architecture has in each state; `rows` may be only the top of them."""
        self.metrics: tuple[str, ...] = ()
        self.matched: tuple[MatchedEntry, ...] = ()
        self.trials: int | None = None
        """Trials of the whole search; None where it is not known."""
        self.best: int | None = None
        self.workers: dict[int, WorkerNews] = {}
        """The latest news of each worker, where there are several."""
        self.version = 0
        """Changes with all that a table shows."""

    def __call__(self, event: Event) -> None:
        """Take an event in."""
        if isinstance(event, RunStarted):
            self.begin(metrics=event.metrics, trials=event.trials, total_tokens=event.total_tokens)
        elif isinstance(event, Activity):
            if self._doing is None or self._doing.message != event.message:
                self._doing_since = self._clock()
            self._doing = event
        elif isinstance(event, TrialStarted):
            self._began[event.number] = _new_row(event, self._total_tokens)
            self._show({})
        elif isinstance(event, TrialEnded):
            self._began.pop(event.number, None)
        elif isinstance(event, WorkerNews):
            self.workers[event.worker] = event
        elif isinstance(event, BlockProgress):
            self.advance(event)
        elif isinstance(event, BlockDone):
            self.advance(event)
            self._began.clear()
            self._rows = tuple(with_references(event.rows, event.references))
            self.matched, self.best, self.states = event.matched, event.best, event.states
            self._show({})

    def begin(self, *, metrics: tuple[str, ...], trials: int | None, total_tokens: int) -> None:
        """Note what the run is about, and that training is next."""
        self.metrics, self.trials, self._total_tokens = metrics, trials, total_tokens
        self._doing, self._has_started, self._doing_since = None, True, self._clock()

    def load(
        self, rows: Sequence[Row], *, metrics: tuple[str, ...], matched: tuple[MatchedEntry, ...], best: int | None
    ) -> None:
        """Take in a leaderboard that a run keeps on disk."""
        if (tuple(rows), best) == (self._rows, self.best):
            return
        self._rows, self.metrics, self.matched, self.best = tuple(rows), metrics, matched, best
        self._began.clear()
        self.states = states_of([row for row in rows if not isinstance(row, ReferenceRow)])
        self._show({})

    def advance(self, event: Progressed, *, seconds_ago: float = 0.0, keep_doing: bool = False) -> None:
        """Take in how far the run is, and was so many seconds ago; what it does is training now, unless that is kept."""
        self._progress, self._progress_at = event, self._clock() - seconds_ago
        self._doing = self._doing if keep_doing else None
        if isinstance(event, BlockProgress) and self._clock() - self._tokens_at >= _TOKENS_SECONDS:
            self._tokens_at = self._clock()
            self._show(event.tokens)

    def status_lines(self) -> list[str]:
        """Return how far the run is, and what it does now: the lines below the leaderboard; they change by themselves."""
        now = self._clock()
        spinner = SPINNER[int(now * _SPINS_PER_SECOND) % len(SPINNER)]
        lines = [*best_lines(self.matched), *worker_lines(self.workers)]
        if self._progress is None:
            return [*lines, f"{spinner} {self._doing_text(now)}"]
        parts = progress_parts(self._progress, self.states, self.trials, seconds_ago=now - self._progress_at)
        cells = bar(self._progress.sae_tokens, self._progress.expected_sae_tokens, _PROGRESS_CELLS)
        return [
            *lines,
            f"{cells} {' · '.join(parts[:3])}",
            f"{spinner} {' · '.join([self._doing_text(now), *parts[3:]])}",
        ]

    def _doing_text(self, now: float) -> str:
        if self._doing is None:
            return "training" if self._has_started or self._progress is not None else "starting"
        text, seconds = self._doing.message, now - self._doing_since
        if self._doing.total:
            text += f" {short_count(self._doing.done or 0)} of {short_count(self._doing.total)}"
        return text if seconds < _LONG_SECONDS else f"{text}, {duration(seconds)}"

    def _show(self, tokens: Mapping[int, int]) -> None:
        known = {row.number for row in self._rows}
        rows = [*self._rows, *(row for number, row in self._began.items() if number not in known)]
        self.rows = tuple(
            replace(row, tokens=tokens[row.number]) if row.status == "training" and row.number in tokens else row
            for row in rows
        )
        self.version += 1


def _new_row(event: TrialStarted, total_tokens: int) -> Row:
    """Return the row of a trial that no block has reported yet."""
    return Row(
        number=event.number,
        architecture=event.architecture,
        sparsity=event.sparsity,
        params=event.params,
        lr=event.params.get("lr", float("nan")),
        hook="",
        status="training",
        tokens=0,
        total_tokens=total_tokens,
        joined_at_tokens=event.joined_at_tokens,
        slot=event.slot,
    )
