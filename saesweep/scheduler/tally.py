"""What the scheduler counts over all trials, kept as they change: an event costs what its own trials cost."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass, field

from saesweep.forecast import Course
from saesweep.scheduler.trial import TrialState


@dataclass
class Tally:
    """Counts and lists over the trials of one state; never altered once it is part of one."""

    training: dict[int, tuple[int, ...]] = field(default_factory=dict)
    """Numbers of the trials in the slots of each worker, ascending; workers that train nothing are missing."""
    waiting: tuple[int, ...] = ()
    """Numbers of the waiting trials, ascending."""
    n_training: int = 0
    suggested: Counter[str] = field(default_factory=Counter)
    """Answered asks by stratum, without those that repeat a failed trial."""
    measured: Counter[str] = field(default_factory=Counter)
    """By architecture, trials that have reported and were not pruned."""
    courses: dict[str, Course] = field(default_factory=dict)
    """By scoped kind, the course of its latest trial."""
    retries: Counter[int] = field(default_factory=Counter)
    """By first trial, how often its settings were repeated."""
    failed: dict[int, tuple[int, ...]] = field(default_factory=dict)
    """By number of attempts, the first trials of those settings that have failed so often and nothing else; ascending."""
    tokens: int = 0
    """Training tokens of all trials."""
    ended_tokens: int = 0
    """Those of the trials that have ended."""

    @property
    def n_live(self) -> int:
        """Number of trials that have not ended."""
        return len(self.waiting) + self.n_training

    def changed(self, changes: Iterable[tuple[TrialState | None, TrialState]]) -> Tally:
        """Return the tally after changes of trials, each as it was (None where it is new) and as it is."""
        new = copy(self)
        new.training, new.courses = self.training.copy(), self.courses.copy()
        new.suggested, new.measured = self.suggested.copy(), self.measured.copy()
        for before, after in changes:
            if before is None:
                new._add(after)
            else:
                new._count(before, -1)
            new._count(after, 1)
        return new

    def _add(self, trial: TrialState) -> None:
        """Count what never changes of a trial."""
        self.courses[trial.course.scoped_kind] = trial.course
        if trial.retry_of is None:
            self.suggested[trial.stratum] += 1
        else:
            self._has_failed(trial.retry_of, -1)
            self.retries = self.retries + Counter([trial.retry_of])

    def _count(self, trial: TrialState, sign: int) -> None:
        """Count a trial, or with a sign of -1 take back that it was counted."""
        self.tokens += sign * trial.tokens_seen
        if trial.reports and trial.status != "pruned":
            self.measured[trial.architecture] += sign
        if trial.status == "waiting":
            self.waiting = _with(self.waiting, trial.number, sign)
        elif trial.status == "training":
            self.n_training += sign
            own = _with(self.training.get(trial.worker, ()), trial.number, sign)
            if own:
                self.training[trial.worker] = own
            else:
                del self.training[trial.worker]
        else:
            self.ended_tokens += sign * trial.tokens_seen
            if trial.failed:
                self._has_failed(trial.first, sign)

    def _has_failed(self, first: int, sign: int) -> None:
        """Note that all attempts at the settings of a trial have failed, or take it back."""
        attempts = 1 + self.retries[first]
        others = {*self.failed.get(attempts, ())} - {first}
        self.failed = {**self.failed, attempts: tuple(sorted({*others, first} if sign > 0 else others))}


def _with(numbers: tuple[int, ...], number: int, sign: int) -> tuple[int, ...]:
    """Return ascending numbers with one more, or with a sign of -1 with one less."""
    found = list(numbers)
    if sign > 0:
        insort(found, number)
    else:
        del found[bisect_left(found, number)]
    return tuple(found)
