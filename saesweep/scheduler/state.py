"""What the scheduler knows: one immutable value, which a checkpoint stores as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

from saesweep.forecast import Evidence, Moments
from saesweep.scheduler.policy import Policy
from saesweep.scheduler.rivals import Rivals
from saesweep.scheduler.trial import TrialState, trial_from_json, trial_to_json
from saesweep.scheduler.trials import Trials
from saesweep.status import DecidedStatus, LiveStatus

JSON_VERSION = 4


@dataclass(frozen=True, kw_only=True)
class State:
    """The sweep as the scheduler sees it; never altered in place."""

    policy: Policy
    workers: Mapping[int, int]
    """Slots of each worker now; none of one that is gone."""
    trials: Trials = field(default_factory=Trials)
    """Every trial that was ever asked and answered, by number."""
    pending: Mapping[int, str] = field(default_factory=dict)
    """Asks not yet answered: trial number to stratum."""
    retrying: Mapping[int, int] = field(default_factory=dict)
    """Of the pending asks, those that repeat a failed trial: number to the first trial with those settings."""
    stopped: str | None = None
    """Reason of the stop; no trial is asked or placed while it is set."""
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
        return [self.trials[number] for number in self.trials.tally.training.get(worker, ())]

    @property
    def next_number(self) -> int:
        """Number that the next new trial gets."""
        return len(self.trials) + len(self.pending)

    @property
    def tokens_spent(self) -> int:
        """Training tokens that all trials together have seen (work redone after a kill counts once)."""
        return self.trials.tally.tokens

    def with_status(self, status: LiveStatus | DecidedStatus) -> list[TrialState]:
        """Return the trials with that status, in number order; of those that have ended it looks through all."""
        tally = self.trials.tally
        if status == "waiting":
            return [self.trials[number] for number in tally.waiting]
        if status == "training":
            return [self.trials[number] for number in sorted(chain.from_iterable(tally.training.values()))]
        return [trial for trial in self.trials.values() if trial.status == status]

    @property
    def rivals(self) -> Rivals:
        """What of the trials counts as a rival."""
        return self.trials.rivals(self.policy.aim, self.policy.end_rung)

    def updated(self, trials: Iterable[TrialState]) -> State:
        """Return a state in which these trials replace those of the same numbers."""
        return replace(self, trials=self.trials.updated(trials))

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
        return cls(
            policy=Policy.from_json(data["policy"]),
            workers={worker: n_slots for worker, n_slots in data["workers"]},
            trials=Trials(map(trial_from_json, data["trials"])),
            pending={number: stratum for number, stratum in data["pending"]},
            retrying={number: first for number, first in data.get("retrying", ())},
            stopped=data["stopped"],
            evidence={(kind, metric, rung): Moments.from_json(sums) for kind, metric, rung, sums in data["evidence"]},
            filling=tuple(data["filling"]),
            unjudged=tuple(data["unjudged"]),
        )
