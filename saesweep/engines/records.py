"""What passes between the driver and a worker: small frozen records that go through JSON.

Nothing here depends on the driver, on a worker or on a numeric library.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, TypeVar

from saesweep.costs import Kind

MessageT = TypeVar("MessageT", bound="Message")


@dataclass(frozen=True, kw_only=True)
class Message:
    """Base of all records."""

    def to_json(self) -> str:
        """Return the record as JSON text; NaN and infinities stay what they are."""
        kind: Any = type(self)
        return json.dumps(_adapter(kind).dump_python(self, mode="json"))

    @classmethod
    def from_json(cls: type[MessageT], text: str) -> MessageT:
        """Return the record that `to_json` described.

        Raises:
            ValueError: A field is missing or of another type.
        """
        kind: Any = cls
        found: MessageT = _adapter(kind).validate_python(json.loads(text))
        return found


@cache
def _adapter(kind: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


# ---------------------------------------------------------------- opening


@dataclass(frozen=True, kw_only=True)
class StreamFacts(Message):
    """What the preflight found about one activation stream; no language model was loaded."""

    label: str
    d_in: Mapping[str, int]
    """Width at every hook."""
    has_lm_head: bool | None
    """Whether the language model has a head; None where there is no model."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class WorkerPlan(Message):
    """What a worker opens."""

    experiment: Mapping[str, Any]
    """The whole experiment as written, secrets by reference."""
    run_dir: str
    stream: str = ""
    """Label of the activation stream; empty where there is one."""
    stream_folder: str = ""
    """Folder of what belongs to that stream alone, in `streams/`."""
    n_trials: int
    """Trials that are expected on this stream: what `cohort.size: auto` goes by."""
    measures_references: bool = True
    """Measure `evaluation.references` before anything trains."""
    folder: str = ""
    """Folder in the run directory of what belongs to this worker alone; empty for the first worker, whose folder it is itself."""
    device: str = ""
    """Where it trains; empty: `base.device`."""
    sharing: int = 1
    """Workers among which the main memory is divided."""
    first_block: int = 0
    """Blocks that it has trained on other streams: those on this one are counted from there."""


@dataclass(frozen=True, kw_only=True)
class Saved(Message):
    """A checkpoint that has reached the disk."""

    block: int
    stream_tokens: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Opened(Message):
    """What a worker found when it opened its stream."""

    d_in: Mapping[str, int]
    """Width at every hook."""
    has_lm_head: bool
    n_slots: int
    """SAEs that it trains at once; a multiple of `search.replicates`."""
    device: str
    has_sinks: bool
    """There are attention sinks among the held-out tokens that count."""
    notes: tuple[str, ...]
    """What to know before the run."""
    details: tuple[str, ...]
    """What was chosen and why: cohort size, kernels."""
    registered_metrics: tuple[str, ...]
    """Metrics of plugins, which it measures beside the usual ones."""
    references: tuple[Mapping[str, Any], ...] = ()
    """Published SAEs as `references.json` holds them."""
    block: int = 0
    """Blocks trained at the checkpoint that it has gone back to; 0 without one."""
    stream_tokens: int = 0
    skipped_batches: int = 0
    driver: Mapping[str, Any] | None = None
    """What the driver had saved with that checkpoint; None without one."""
    last_block: int = 0
    """Last block that was noted before it was trained: with what was noted it can be repeated, from `block` on."""
    steps: Mapping[int, int] = field(default_factory=dict)
    """Of each trial in that checkpoint, the training steps that it had had."""
    damaged: tuple[str, ...] = ()
    """A message about each newer checkpoint that could not be read."""
    costs: Mapping[Kind, float] = field(default_factory=dict)
    """Seconds of its opening that were no set-up: published SAEs were measured."""


# ---------------------------------------------------------------- training


@dataclass(frozen=True, kw_only=True)
class Place(Message):
    """Put a trial in a slot: from its last state where the worker holds one, else from its initialisation."""

    number: int
    slot: int
    """Of the driver's slots, each of which holds all replicates of a trial."""
    params: Mapping[str, Any]
    source: str | None = None
    """Folder of another worker whose last checkpoint holds the trial; None: it has trained here, or nowhere yet."""


@dataclass(frozen=True, kw_only=True)
class Commands(Message):
    """What a worker does before it trains: first it removes, then it places."""

    remove: tuple[int, ...] = ()
    """Trials that have ended, in a slot or waiting for one."""
    place: tuple[Place, ...] = ()


@dataclass(frozen=True, kw_only=True)
class BlockRequest(Message):
    """Carry out commands, train a block, measure."""

    number: int
    """Counted from 1. The same number again gives the same report and trains nothing."""
    steps: int
    commands: Commands
    measure: tuple[int, ...]
    """Trials to measure at the end of the block; one that finishes in it is measured and exported in any case."""
    metrics: tuple[str, ...]
    """The metrics that are decided by: whether a language model is needed for them, the worker knows."""
    required: tuple[str, ...]
    """A trial is not exported where one of these has no finite value."""
    save: Mapping[str, Any] | None = None
    """Write a checkpoint between the commands and the training, with this of the driver's in it."""


@dataclass(frozen=True, kw_only=True)
class Notice(Message):
    """Something to tell the user."""

    level: Literal["info", "warning"]
    message: str


@dataclass(frozen=True, kw_only=True)
class SnapshotTaken(Message):
    """A trial's SAE was kept in training form."""

    number: int
    tokens: int
    path: str
    is_final: bool
    replicate: int


@dataclass(frozen=True, kw_only=True)
class Scores(Message):
    """Held-out metrics of a trial."""

    metrics: Mapping[str, float]
    """The mean over its replicates."""
    spread: Mapping[str, float]
    """Their sample standard deviation; empty for a single one."""
    replicates: tuple[Mapping[str, float], ...]
    """Those of each replicate."""
    dead_window_tokens: int
    densities: tuple[int, ...] = ()
    """Latents of the first replicate by how often they fire, as `DENSITY_EDGES` divides them."""
    cause: str = ""
    """Why a required metric has no finite value, where the SAE itself shows it."""


@dataclass(frozen=True, kw_only=True)
class ControlReading(Message):
    """One reading of the controller of a steered replicate."""

    replicate: int
    tokens: int
    field: str
    coefficient: float
    l0: float


@dataclass(frozen=True, kw_only=True)
class TrialReport(Message):
    """What became of one trial in a block."""

    tokens: int
    """Training tokens it has seen."""
    step: int
    joined_at_tokens: int
    is_finite: bool
    """False where a loss was NaN or infinite; such a trial is not measured."""
    values: Mapping[str, int | float]
    """Losses (mean over the block and the replicates), schedules at the last step and dead latents, in SAELens' names."""
    readings: tuple[ControlReading, ...] = ()
    scores: Scores | None = None
    frozen: tuple[float, ...] = ()
    """The coefficient that each replicate of a steered trial ended with, once it is finished."""

    @property
    def loss(self) -> float:
        """Mean loss over the block."""
        return self.values.get("losses/overall_loss", float("nan"))


@dataclass(frozen=True, kw_only=True)
class BlockReport(Message):
    """What a worker did in one block."""

    number: int
    trials: Mapping[int, TrialReport]
    """By trial number, in the order of the slots."""
    stream_tokens: int
    """Position of the stream after the block."""
    epoch: int
    seconds: float
    skipped_batches: int
    """Batches left out because of NaN or infinities, over all starts of the run."""
    unreadable_rows: int
    """Rows of the dataset that this worker could not use."""
    events: tuple[Notice | SnapshotTaken, ...] = ()
    """What happened while it trained, in order."""
    notes: tuple[Notice, ...] = ()
    """What it noticed while it measured."""
    saved: tuple[Saved, ...] = ()
    """Checkpoints that have reached the disk since the last report."""
    wants_checkpoint: bool = False
    """It is time for one: the next request should save."""
    costs: Mapping[Kind, float] = field(default_factory=dict)
    """Seconds since the last report by kind of work; what is not in it was none of the worker's."""


@dataclass(frozen=True, kw_only=True)
class SaveRequest(Message):
    """Carry out commands and write a checkpoint; the reply comes when everything is on disk."""

    number: int
    """Of the next block."""
    commands: Commands
    driver: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class SaveReply(Message):
    """Checkpoints that have reached the disk since the last report."""

    saved: tuple[Saved, ...]


# ---------------------------------------------------------------- the end


@dataclass(frozen=True, kw_only=True)
class Finished(Message):
    """A finished trial, as exported."""

    number: int
    hook: str
    replicates: int


@dataclass(frozen=True, kw_only=True)
class Tested(Message):
    """What a winner measured on the `test` part."""

    metrics: Mapping[str, float]
    """The mean over its replicates."""
    spread: Mapping[str, float]
    """Their sample standard deviation; empty for a single one."""


@dataclass(frozen=True, kw_only=True)
class Export(Message):
    """Copy a finished trial's SAE to a folder."""

    number: int
    target: str
    extra: Mapping[str, Any] = field(default_factory=dict)
    """What to add to its `provenance.json`."""
    is_tested: bool = False
    """How often its latents fire is that of the `test` part, which it was measured on before."""
