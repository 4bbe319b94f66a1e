"""Rate, time left, and the leaderboard file."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from saesweep.driver.references import ranked_references, reference_rows
from saesweep.engines.records import Opened
from saesweep.events import BlockProgress, MatchedEntry, ReferenceRow, Row
from saesweep.runs import write_table
from saesweep.specs import ExperimentSpec, ObjectiveSpec

_BLOCKS = 20
_EMIT_SECONDS = 0.5
_SHARE = 0.02
_INTERVAL_SECONDS = 1.0


class Pace:
    """Lets something happen at most once a second, and for at most 2% of the time.

    Args:
        clock: Returns monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next = -float("inf")

    def is_due(self) -> bool:
        """Return whether it may happen again."""
        return self._clock() >= self._next

    @contextmanager
    def taking(self) -> Iterator[None]:
        """Let it happen, and measure what it takes."""
        started = self._clock()
        yield
        ended = self._clock()
        self._next = ended + max(_INTERVAL_SECONDS, (ended - started) / _SHARE)


class Progress:
    """The rate over the last blocks, and what it promises; within a block, how far it is.

    Args:
        clock: Returns monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._blocks: deque[tuple[float, int]] = deque(maxlen=_BLOCKS)
        self._clock = clock
        self._began = self._emitted_at = clock()
        self._done = self._expected = 0

    def update(self, seconds: float, tokens: int, tokens_left: int) -> tuple[float, float]:
        """Add a block; return tokens per second and the seconds left at that rate."""
        self._blocks.append((seconds, tokens))
        return self._rate(0.0, 0, tokens_left)

    def begin_block(self, done: int, expected: int) -> None:
        """Begin a block, with what is trained by then and what is expected at the end of the run, over all trials."""
        self._began = self._emitted_at = self._clock()
        self._done, self._expected = done, expected

    def is_due(self) -> bool:
        """Return whether it is time to say how far the block is; a True starts the next interval."""
        now = self._clock()
        if now - self._emitted_at < _EMIT_SECONDS:
            return False
        self._emitted_at = now
        return True

    def within(self, tokens: Mapping[int, int], done: int, *, stream_tokens: int, epoch: int) -> BlockProgress:
        """Return how far the block is.

        Args:
            tokens: Tokens that each trial in a slot has trained on.
            done: Tokens trained on, over all trials.
            stream_tokens: Tokens that the stream has served.
            epoch: How often the data was read to the end.
        """
        rate, eta_seconds = self._rate(self._clock() - self._began, done - self._done, self._expected - done)
        return BlockProgress(
            tokens=tokens,
            stream_tokens=stream_tokens,
            sae_tokens=done,
            expected_sae_tokens=self._expected,
            sae_tokens_per_second=rate,
            eta_seconds=eta_seconds,
            epoch=epoch,
        )

    def _rate(self, seconds: float, tokens: int, tokens_left: int) -> tuple[float, float]:
        total_seconds = seconds + sum(s for s, _ in self._blocks)
        rate = (tokens + sum(t for _, t in self._blocks)) / total_seconds if total_seconds > 0 else 0.0
        return rate, tokens_left / rate if rate > 0 else float("inf")


def goal_texts(objective: ObjectiveSpec) -> tuple[str, ...]:
    """Return the goals as text, such as `minimize l0`, or `minimize delta_ce at L0 16, 32`."""
    matched = objective.matched
    at = "" if matched is None else f" at L0 {', '.join(f'{target:g}' for target in matched.l0)}"
    return tuple(f"{goal.direction} {goal.metric}{at}" for goal in objective.goals)


def metric_columns(
    objective: ObjectiveSpec, opened: Opened, replicates: int = 1, *, has_probes: bool = False
) -> tuple[str, ...]:
    """Return the metrics worth a column: the goals' first, then the usual ones, then those of plugins.

    Explained variance without attention sinks has a column where there are sinks, seed stability where there are replicates,
    the accuracy of probes where there are some.
    """
    usual = (
        ("l0", "delta_ce", "explained_variance", "dead_fraction")
        if opened.has_lm_head
        else (
            "l0",
            "explained_variance",
            "mse",
            "dead_fraction",
        )
    )
    without_sinks = ["explained_variance_no_sinks"] if opened.has_sinks else []
    probes = ["probe_accuracy"] if has_probes else []
    shown = [*usual, *without_sinks, *probes, *(["seed_stability"] if replicates > 1 else []), "decoder_cosine"]
    return tuple(dict.fromkeys([*objective.metric_names(), *shown, *opened.registered_metrics]))


@dataclass(frozen=True)
class Board:
    """Where a run's leaderboard goes, and what it says at the top; outlives the model and the cohort."""

    file: Path
    name: str
    goals: tuple[str, ...]
    metrics: tuple[str, ...]
    objective: ObjectiveSpec
    measured_references: tuple[ReferenceRow, ...]
    retry_failed: int = 0
    """`search.retry_failed` of the run."""

    @classmethod
    def of(cls, file: Path, spec: ExperimentSpec, objective: ObjectiveSpec, opened: Opened) -> Board:
        """Return the board of an opened run."""
        return cls(
            file,
            spec.name,
            goal_texts(objective),
            metric_columns(objective, opened, spec.search.replicates, has_probes=spec.evaluation.probes is not None),
            objective,
            reference_rows(opened.references),
            spec.search.retry_failed,
        )

    def references(self, rows: Sequence[Row]) -> tuple[ReferenceRow, ...]:
        """Return the published SAEs, ranked among trials."""
        return ranked_references(self.measured_references, rows, self.objective)

    def write(
        self,
        rows: Sequence[Row],
        *,
        status: str,
        stream_tokens: int,
        best: int | None = None,
        test_metrics: Mapping[str, float] | None = None,
        notes: Sequence[str] = (),
        matched: Sequence[MatchedEntry] = (),
        confirm: Mapping[str, Any] | None = None,
    ) -> None:
        """Write `leaderboard.json`."""
        write_table(
            self.file,
            {
                "name": self.name,
                "status": status,
                "goals": self.goals,
                "metrics": self.metrics,
                "stream_tokens": stream_tokens,
                "retry_failed": self.retry_failed,
                "best": best,
                "test_metrics": dict(test_metrics or {}),
                "notes": list(notes),
                "rows": [vars(row) for row in rows],
                "references": [asdict(row) for row in self.references(rows)],
                **({} if not matched else {"matched": [asdict(entry) for entry in matched]}),
                **({} if confirm is None else {"confirm": confirm}),
            },
            rows="rows",
        )
