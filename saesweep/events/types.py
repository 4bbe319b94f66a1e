"""What happens in a run, as typed events. Displays, the event log and trackers listen; nothing here decides."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from typing import Any, Literal, TypeVar

from saesweep.costs import Kind
from saesweep.status import EndedStatus, RowStatus, RunStatus

RowT = TypeVar("RowT", bound="Row")

DENSITY_EDGES = (-10.0, *(-6 + 0.25 * i for i in range(25)))
"""Edges of the histogram of firing densities, as log10; the first bar holds the latents that never fired."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One trial on the leaderboard."""

    number: int
    architecture: str
    sparsity: str
    """The sparsity setting as text, such as `k 32` or `λ 2.5`, the weight of a penalty."""
    params: Mapping[str, Any]
    """The searched parameters by dotted path."""
    lr: float
    hook: str
    status: RowStatus
    tokens: int
    """Tokens that this trial has trained on."""
    total_tokens: int
    joined_at_tokens: int | None = None
    """Stream position at which it entered its slot; None while waiting."""
    slot: int | None = None
    rank: int | None = None
    """1 is best; None while there is no value to rank by."""
    on_front: bool = False
    """On the Pareto front of finished, feasible trials."""
    feasible: bool = True
    is_baseline: bool = False
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Latest held-out metrics of the exported form, by the names of `saesweep.specs.METRICS`."""
    measured_at_tokens: int | None = None
    """Tokens the trial had seen when `metrics` were measured."""
    dead_window_tokens: int | None = None
    """The window that `dead_fraction` speaks of."""
    reason: str = ""
    """Why it was pruned or failed."""
    replicates: int = 1
    """SAEs with different seeds that `metrics` are the means of."""
    spread: Mapping[str, float] = field(default_factory=dict)
    """Standard deviation of each metric over the replicates; empty where there is one."""
    tied_from_rank: int | None = None
    """First rank of the bracket of trials that seeds alone could swap; None where no noise floor is known."""
    tied_to_rank: int | None = None
    """Last rank of that bracket."""
    stream: str = ""
    """The activation stream, such as `context_size 256`; empty where all trials share one."""
    retry_of: int | None = None
    """The first trial with its settings, which failed; None for a trial that repeats none."""
    target_l0: float | None = None
    """The L0 that it aims at, with `objective.matched`."""
    coefficient: Mapping[str, Any] = field(default_factory=dict)
    """Of a steered trial: the `field`, where it started, what each replicate ended with (`frozen`), and from when on."""
    trend: Sequence[Sequence[float]] = field(default_factory=list)
    """With `objective.matched`, (tokens, value of the goal) before the learning rate decays: is it still improving?"""

    def placed(
        self, rank: int | None, *, on_front: bool, feasible: bool, tied: tuple[int | None, int | None] = (None, None)
    ) -> Row:
        """Return a copy at a place of the ranking.

        `dataclasses.replace` takes five times as long, and a leaderboard of 10,000 rows is ranked again and again.
        """
        copy = object.__new__(type(self))
        vars(copy).update(vars(self))
        vars(copy).update(rank=rank, on_front=on_front, feasible=feasible, tied_from_rank=tied[0], tied_to_rank=tied[1])
        return copy

    @classmethod
    def from_json(cls: type[RowT], data: Any) -> RowT:
        """Return a row as `leaderboard.json` holds it, where null stands for NaN.

        Raises:
            ValueError: A field is missing, unknown or of another type.
        """
        if not isinstance(data, dict):
            raise ValueError(f"a row is a {type(data).__name__}, not a mapping")
        unknown = sorted(set(data) - {field.name for field in fields(cls)})
        if unknown:
            raise ValueError(f"unknown field {unknown[0]!r} in a row")
        numbers = {name: _with_nan(data[name]) for name in ("lr", "metrics", "spread") if name in data}
        row_class: Any = cls
        found: RowT = _reader(row_class).validate_python({**data, **numbers})
        return found


@cache
def _reader(row_class: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(row_class)


@dataclass(frozen=True, kw_only=True)
class MatchedEntry:
    """One architecture at one target L0, with `objective.matched`."""

    target_l0: float
    architecture: str
    hook: str
    trial: int
    """Its best finished trial there."""
    goal: str
    """Name of the objective's metric."""
    metrics: Mapping[str, float]
    """At exactly that L0 where `is_interpolated`, else as measured: the goal and the usual metrics."""
    is_interpolated: bool
    is_comparable: bool
    """Interpolated, or measured within 10% of the target: what is not cannot win."""
    l0: float
    """Held-out L0 of that trial, through its exported form."""
    stderr: float | None = None
    """Standard error of the goal, over contexts and over seeds; None where neither is known."""
    seed_stderr: float | None = None
    """The part of it that seeds have; None without replicates."""
    replicates: int = 1
    tokens: int = 0
    """Tokens that the trial has trained on."""
    n_trials: int = 0
    """Trials of this architecture that aimed at this L0."""
    n_complete: int = 0
    behind: float | None = None
    """How much worse than the winner in the goal, 0 or more; None for the winner, and for what is not comparable."""
    behind_stderr: float | None = None
    """Standard error of that difference, paired over the same contexts."""
    is_winner: bool = False
    is_tied: bool = False
    """Within two standard errors of the winner."""
    still_improving: bool | None = None
    """Before the learning rate decayed; None where it is not known."""
    test_metrics: Mapping[str, float] = field(default_factory=dict)
    """Of a winner, its trial as exported, measured once on the `test` part."""
    test_spread: Mapping[str, float] = field(default_factory=dict)


def _with_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _with_nan(item) for name, item in value.items()}
    return math.nan if value is None else value


@dataclass(frozen=True, kw_only=True)
class ReferenceRow(Row):
    """A published SAE on the leaderboard: measured on the tokens that trials are ranked on, and no trial itself.

    `number` counts references, from 0. `rank` is where it would stand among the trials, whose own ranks do not count it.
    """

    source: str
    """What `evaluation.references` names."""
    d_sae: int


@dataclass(frozen=True, kw_only=True)
class Event:
    """Base of all events."""

    def to_json(self) -> dict[str, Any]:
        """Return the event as JSON data with its kind under `event`."""
        return {"event": type(self).__name__, **asdict(self)}


@dataclass(frozen=True, kw_only=True)
class RunStarted(Event):
    """The run directory is open and everything is checked; training begins or resumes."""

    name: str
    run_dir: str
    trials: int
    slots: int
    total_tokens: int
    """Tokens of one full trial."""
    goals: tuple[str, ...]
    """The objective, such as ('minimize l0', 'minimize delta_ce')."""
    metrics: tuple[str, ...]
    """Metric columns worth showing, most important first."""
    resumed_at_tokens: int | None = None
    """Stream position of the checkpoint that the run resumes from."""
    notes: tuple[str, ...] = ()
    """What to know before the run: warnings, what was taken from elsewhere."""
    details: tuple[str, ...] = ()
    """What was chosen and why (cohort size, kernels); displays show it on request."""


@dataclass(frozen=True, kw_only=True)
class Activity(Event):
    """What the run does now, where that may take a while; the next event of training ends it. Displays only: not logged."""

    message: str
    """Such as `loading builtin:tiny-lm`."""
    done: int | None = None
    """Of `total`; None where it cannot be counted."""
    total: int | None = None


@dataclass(frozen=True, kw_only=True)
class Note(Event):
    """Something to tell the user once."""

    level: Literal["info", "warning"]
    message: str


@dataclass(frozen=True, kw_only=True)
class TrialStarted(Event):
    """A trial entered a slot."""

    number: int
    slot: int
    architecture: str
    sparsity: str
    params: Mapping[str, Any]
    joined_at_tokens: int
    worker: int = 0
    """Whose slot it is."""


@dataclass(frozen=True, kw_only=True)
class TrialTrained(Event):
    """A trial has trained for one more block; the same line is in its `metrics.jsonl`."""

    number: int
    step: int
    """Training steps that it has had."""
    tokens: int
    values: Mapping[str, float]
    """Losses (mean over the block), learning rate, coefficients, dead latents, in SAELens' names."""


@dataclass(frozen=True, kw_only=True)
class TrialMeasured(Event):
    """A trial was evaluated on held-out activations."""

    number: int
    tokens: int
    metrics: Mapping[str, float]
    densities: tuple[int, ...] = ()
    """Latents of its first replicate by log10 of the share of held-out tokens that they fire on: one count for each pair of
    neighbours in `DENSITY_EDGES`."""


@dataclass(frozen=True, kw_only=True)
class TrialEnded(Event):
    """A trial was pruned, finished or failed."""

    number: int
    status: EndedStatus
    tokens: int
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Progressed(Event):
    """How far the run is: the base of `BlockProgress` and `BlockDone`."""

    stream_tokens: int
    """Tokens that the stream has served."""
    sae_tokens: int
    """Tokens trained on, summed over all trials."""
    expected_sae_tokens: int
    """What that sum will be at the end if no further trial is pruned."""
    sae_tokens_per_second: float
    eta_seconds: float
    epoch: int = 0


@dataclass(frozen=True, kw_only=True)
class BlockProgress(Progressed):
    """Part of a block has been trained, told about twice a second. Displays only: not logged."""

    tokens: Mapping[int, int]
    """Tokens that each trial in a slot has trained on."""


@dataclass(frozen=True, kw_only=True)
class BlockDone(Progressed):
    """One block of tokens has been trained; `rows` is what a screen can show of the leaderboard after it, best first."""

    block: int
    seconds: float
    """Wall-clock time of this block."""
    losses: Mapping[int, float]
    """Training loss of each trial in a slot at the end of the block."""
    rows: tuple[Row, ...]
    """The trials that have not ended, and the top of those that have: a hundred. `leaderboard.json` has all."""
    states: Mapping[str, Mapping[str, int]]
    """How many of all trials each architecture has in each state, such as {"topk": {"complete": 3, "training": 1}}."""
    best: int | None = None
    """The trial that would be exported if the run ended here; None while no trial has finished."""
    references: tuple[ReferenceRow, ...] = ()
    """Published SAEs, ranked among all trials when `leaderboard.json` was last written."""
    matched: tuple[MatchedEntry, ...] = ()
    """With `objective.matched`, the best at each L0 then."""


@dataclass(frozen=True, kw_only=True)
class WorkerNews(Event):
    """How a worker is, in a run with several of them: after each of its blocks, and when it joins or leaves."""

    worker: int
    device: str
    state: Literal["training", "idle", "gone"]
    stream_tokens: int
    """Tokens that its stream has served."""
    sae_tokens_per_second: float | None
    """Over its last block; None where it has trained none."""
    trials: tuple[int, ...]
    """Those in its slots."""


@dataclass(frozen=True, kw_only=True)
class CheckpointSaved(Event):
    """Everything needed to resume is on disk."""

    block: int
    stream_tokens: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class SnapshotSaved(Event):
    """A trial's SAE was kept in training form (`n_checkpoints`, `save_final_checkpoint`)."""

    number: int
    tokens: int
    """Tokens that the trial had trained on."""
    path: str
    """Its folder, whole by now."""
    is_final: bool = False
    """The trial has trained to its end."""
    replicate: int = 0


@dataclass(frozen=True, kw_only=True)
class RunEnded(Event):
    """The run is over: complete, stopped by a budget, or interrupted."""

    status: RunStatus
    rows: tuple[Row, ...]
    best: int | None
    """Number of the exported trial."""
    best_dir: str | None
    metrics: tuple[str, ...] = ()
    """Metric columns worth showing, most important first, as in `RunStarted`, which a finished run does not repeat."""
    test_metrics: Mapping[str, float] = field(default_factory=dict)
    """The winner, measured once on the `test` part."""
    trained_tokens: int = 0
    """Tokens trained on by this process."""
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    """What to know about the result: no feasible trial, the knee of a front, runs still improving."""
    resume_command: str | None = None
    references: tuple[ReferenceRow, ...] = ()
    """Published SAEs, ranked among these rows."""
    matched: tuple[MatchedEntry, ...] = ()
    """With `objective.matched`, the best at each L0."""
    costs: Mapping[Kind, float] = field(default_factory=dict)
    """Where the time went, over all starts: seconds by kind of work."""
