"""What the scheduler knows: one immutable value, which a checkpoint stores as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from saesweep.forecast import Course, Evidence, Moments
from saesweep.scheduler.policy import Policy

Status = Literal["waiting", "training", "pruned", "complete"]
"""`waiting` and `training` trials are live; `pruned` and `complete` are terminal."""

JSON_VERSION = 4


@dataclass(frozen=True, kw_only=True)
class TrialState:
    """One trial as the scheduler sees it."""

    number: int
    """Number of the trial, the same as in the study; counted from 0."""
    stratum: str
    """What it was asked for."""
    group: str
    """Its rivals are the trials of the same group: of its stream, and with matched L0 of its hook and target."""
    architecture: str
    """The quota is counted over trials of the same architecture."""
    course: Course
    """Its kind, and what of its schedule lies ahead at each rung."""
    status: Status = "waiting"
    worker: int = 0
    """Where it trains, or has trained last; counted from 0."""
    slot: int | None = None
    """Its place in the worker's cohort while `training`, counted from 0."""
    tokens_seen: int = 0
    """Training tokens it had seen at its last block boundary."""
    reports: Mapping[int, tuple[float, ...]] = field(default_factory=dict)
    """By rung index, what was measured there, in the order of the aim's metrics; finite. The last rung is the end."""
    pruned_at_rung: int | None = None
    """Index of the rung that pruned it; None where something else ended it."""
    failed: bool = False
    """It could not continue."""
    retry_of: int | None = None
    """The first trial with its settings, which failed; None for a trial that repeats none."""

    @property
    def live(self) -> bool:
        """Whether the trial has not ended."""
        return self.status in ("waiting", "training")


@dataclass(frozen=True, kw_only=True)
class State:
    """The sweep as the scheduler sees it; never altered in place."""

    policy: Policy
    workers: Mapping[int, int]
    """Slots of each worker now; none of one that is gone."""
    trials: Mapping[int, TrialState] = field(default_factory=dict)
    """Every trial that was ever asked and answered, by number."""
    pending: Mapping[int, str] = field(default_factory=dict)
    """Asks not yet answered: trial number to stratum."""
    retrying: Mapping[int, int] = field(default_factory=dict)
    """Of the pending asks, those that repeat a failed trial: number to the first trial with those settings."""
    stopped: str | None = None
    """Reason of the stop; no trial is asked or placed while it is set."""
    final: bool = False
    """Whether the stop was requested as final: `Opened` does not end it."""
    evidence: Evidence = field(default_factory=dict)
    """What finished trials have shown of the changes between a rung and the end."""
    filling: tuple[int, ...] = ()
    """Workers between two blocks, whose free slots are filled; the others are in the middle of one."""
    unjudged: tuple[int, ...] = ()
    """Workers whose trials were not judged since a trial of another worker reported."""

    @classmethod
    def new(cls, policy: Policy) -> State:
        """Return the state before the first event."""
        return cls(policy=policy, workers={0: policy.n_slots})

    @property
    def n_slots(self) -> int:
        """Slots of all workers."""
        return sum(self.workers.values())

    def training_on(self, worker: int) -> list[TrialState]:
        """Return the trials in the slots of a worker, in number order."""
        return [trial for trial in self.with_status("training") if trial.worker == worker]

    @cached_property
    def next_number(self) -> int:
        """Number that the next new trial gets."""
        return len(self.trials) + len(self.pending)

    @cached_property
    def tokens_spent(self) -> int:
        """Training tokens that all trials together have seen (work redone after a kill counts once)."""
        return sum(trial.tokens_seen for trial in self.trials.values())

    def with_status(self, status: Status) -> list[TrialState]:
        """Return the trials with that status, in number order."""
        pool = self.live_trials if status in ("waiting", "training") else self.trials.values()
        return sorted((trial for trial in pool if trial.status == status), key=lambda trial: trial.number)

    @cached_property
    def live_trials(self) -> tuple[TrialState, ...]:
        """The trials that have not ended: few, whatever the length of the sweep."""
        return tuple(trial for trial in self.trials.values() if trial.live)

    def updated(self, trials: Iterable[TrialState]) -> State:
        """Return a state in which these trials replace those of the same numbers."""
        return replace(self, trials={**self.trials, **{trial.number: trial for trial in trials}})

    def due_rungs(self, number: int, tokens_seen: int) -> tuple[int, ...]:
        """Return the rungs, the end among them, that a trial has reached at `tokens_seen` and not yet reported, ascending.

        The caller measures the trial when this is not empty, and reports one value tuple for each rung.
        """
        reported = self.trials[number].reports
        stops = self.policy.stops_tokens
        return tuple(r for r, tokens in enumerate(stops) if tokens <= tokens_seen and r not in reported)

    def to_json(self) -> dict[str, Any]:
        """Return the state as a mapping of plain JSON values (no NaN, no infinity)."""
        return {
            "version": JSON_VERSION,
            "policy": self.policy.to_json(),
            "workers": [[worker, n_slots] for worker, n_slots in self.workers.items()],
            "trials": [trial_to_json(trial) for trial in self.trials.values()],
            "pending": [[number, stratum] for number, stratum in self.pending.items()],
            "retrying": [[number, first] for number, first in self.retrying.items()],
            "stopped": self.stopped,
            "final": self.final,
            "evidence": [[*key, moments.to_json()] for key, moments in self.evidence.items()],
            "filling": list(self.filling),
            "unjudged": list(self.unjudged),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> State:
        """Return the state that `to_json` described, before or after a trip through a JSON file.

        Raises:
            ValueError: When another version of the format wrote it.
        """
        if data["version"] != JSON_VERSION:
            raise ValueError(f"scheduler state has format version {data['version']}; this version reads {JSON_VERSION}")
        trials = [trial_from_json(item) for item in data["trials"]]
        return cls(
            policy=Policy.from_json(data["policy"]),
            workers={worker: n_slots for worker, n_slots in data["workers"]},
            trials={trial.number: trial for trial in trials},
            pending={number: stratum for number, stratum in data["pending"]},
            retrying={number: first for number, first in data.get("retrying", ())},
            stopped=data["stopped"],
            final=data["final"],
            evidence={(kind, metric, rung): Moments.from_json(sums) for kind, metric, rung, sums in data["evidence"]},
            filling=tuple(data["filling"]),
            unjudged=tuple(data["unjudged"]),
        )


def trial_to_json(trial: TrialState) -> dict[str, Any]:
    """Return a trial as plain JSON values; rung indices become strings, as JSON keys are."""
    return {**asdict(trial), "reports": {str(r): list(values) for r, values in trial.reports.items()}}


def trial_from_json(data: Mapping[str, Any]) -> TrialState:
    """Return the trial that `trial_to_json` described."""
    reports = {int(r): tuple(v) for r, v in data["reports"].items()}
    return TrialState(**{**data, "reports": reports, "course": Course.from_json(data["course"])})
