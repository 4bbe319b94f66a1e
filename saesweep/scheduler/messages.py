"""Events that the scheduler receives and actions that it returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from saesweep.forecast import Course
from saesweep.scheduler.policy import Policy
from saesweep.scheduler.trial import TrialState


@dataclass(frozen=True, kw_only=True)
class Opened:
    """The sweep starts or resumes with an empty cohort.

    Every trial that was training is placed again, so that the caller loads its slot checkpoint; asks that were not
    answered are repeated; a stop that someone requested is forgotten.
    """

    trials: tuple[TrialState, ...] = ()
    """Trials known from elsewhere (a study without a scheduler checkpoint); they replace those of the same numbers."""


@dataclass(frozen=True, kw_only=True)
class Suggested:
    """The answer to one `Ask`: the study has suggested trial `number`."""

    number: int
    stratum: str
    group: str
    """Its rivals are the trials of the same group."""
    course: Course
    """Its kind, and what of its schedule lies ahead at each rung."""
    architecture: str | None = None
    """For the quota; the stratum where left out."""
    retry_of: int | None = None
    """As it was asked."""


@dataclass(frozen=True, kw_only=True)
class BlockDone:
    """All slots of a worker have trained to a block boundary."""

    tokens_seen: Mapping[int, int]
    """Training tokens that each trial in training there has seen, by trial number."""
    values: Mapping[int, Mapping[int, tuple[float, ...]]] = field(default_factory=dict)
    """By trial number and rung index, the measured metrics in the order of the aim's, for every rung that came due.

    The rung after the last one is the end of a trial.
    """
    failed: Mapping[int, str] = field(default_factory=dict)
    """Trials that cannot continue (NaN in the loss or in the final measurement), with the reason."""
    worker: int = 0


@dataclass(frozen=True, kw_only=True)
class Failed:
    """One live trial cannot continue, found out between blocks (its checkpoint is corrupt, say)."""

    number: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class SlotsChanged:
    """The cohort of a worker now has another size; trials in lost slots wait, and continue from their last state.

    A worker that was not known has joined; one without slots is gone.
    """

    n_slots: int
    worker: int = 0
    tokens_seen: Mapping[int, int] = field(default_factory=dict)
    """Of the trials there that have gone back to an earlier state, the tokens that they had seen then."""


@dataclass(frozen=True, kw_only=True)
class PolicyChanged:
    """From here on other rules hold: more trials, another space. Asks that were not answered are forgotten."""

    policy: Policy


@dataclass(frozen=True, kw_only=True)
class StopRequested:
    """Someone or some limit ends the sweep; live trials stay as they are, to be resumed."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class Ask:
    """Suggest the settings of trial `number` within `stratum`; answer with `Suggested`."""

    number: int
    stratum: str
    retry_of: int | None = None
    """Take those of this trial, which failed; None: new ones."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Put the trial in the slot: from its last saved state where it has one, else from its initialisation."""

    number: int
    slot: int
    worker: int = 0


@dataclass(frozen=True, kw_only=True)
class Prune:
    """End the trial; its slot is free."""

    number: int
    reason: str
    rung: int | None = None
    """Index of the rung that judged it, where one did."""
    expected: Mapping[str, float] = field(default_factory=dict)
    """The metrics that it was expected to end with, by name; what has no forecast is missing. For the sampler."""


@dataclass(frozen=True, kw_only=True)
class Complete:
    """The trial has trained to its end; its slot is free."""

    number: int


@dataclass(frozen=True, kw_only=True)
class Stop:
    """Nothing is left to do: `complete`, `tokens_budget`, or the reason that was requested."""

    reason: str


Event = Opened | Suggested | BlockDone | Failed | SlotsChanged | PolicyChanged | StopRequested
Action = Ask | Place | Prune | Complete | Stop
