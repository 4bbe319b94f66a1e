"""Events as lines of text, with the memory that this needs: the run, and what each trial is."""

from __future__ import annotations

from saesweep.display.summary import metrics_text, opening_lines, trial_label, trial_start_line
from saesweep.display.text import percent
from saesweep.events import (
    BlockDone,
    CheckpointSaved,
    Event,
    Note,
    RunEnded,
    RunStarted,
    SnapshotSaved,
    TrialEnded,
    TrialMeasured,
    TrialStarted,
)
from saesweep.numbers import short_count


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
