"""The calls between the driver and a worker; `records` has what they take and give.

A worker owns one device: the language model, one activation stream, the SAEs that train there, their held-out metrics, its
checkpoints and exports. The driver owns every decision. Nothing here depends on either, nor on a numeric library.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from saesweep.engines.records import (
    BlockReport,
    BlockRequest,
    Export,
    Finished,
    Opened,
    SaveReply,
    SaveRequest,
    StreamFacts,
    Tested,
    WorkerPlan,
)
from saesweep.experiment import Experiment


class WorkerFault(Exception):
    """A worker is of no use any more.

    Args:
        reason: The first line of what was said.
    """

    worker: Worker | None = None
    """Which one; None where it was not open yet, or where there is only one."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class OutOfMemory(WorkerFault):
    """Its device or host has no memory left; it has to be opened again, with fewer SAEs.

    Args:
        reason: The first line of what was said.
        is_measuring: It happened while SAEs were measured: other settings matter than in training.
    """

    def __init__(self, reason: str, is_measuring: bool) -> None:
        super().__init__(reason)
        self.is_measuring = is_measuring


class WorkerLost(WorkerFault):
    """Its process or its machine is gone, and no other device is free now."""


class Worker(Protocol):
    """The calls of an open worker. One is answered before the next is made."""

    @property
    def opened(self) -> Opened:
        """What it found when it was opened; waits for it.

        Raises:
            UserError: The model or the data cannot be had, or memory holds no SAE.
            WorkerFault: It is of no use.
        """
        ...

    @property
    def is_opened(self) -> bool:
        """Whether `opened` is there without waiting."""
        ...

    def start(self, request: BlockRequest) -> None:
        """Begin a block; `Engine.next_report` has its report."""
        ...

    def save(self, request: SaveRequest) -> SaveReply:
        """Write a checkpoint and wait for it."""
        ...

    def test(self, trial: Finished) -> Tested:
        """Measure a finished trial on the `test` part."""
        ...

    def compare(self, trials: Sequence[Finished], metric: str) -> None:
        """Measure finished trials on the same contexts of `select`, for `stderr`."""
        ...

    def stderr(self, weights: Mapping[int, float]) -> float | None:
        """Return the standard error over contexts of a weighted sum of compared trials' metric; None where not known."""
        ...

    def export(self, export: Export) -> None:
        """Copy a finished trial's SAE to a folder."""
        ...

    def close(self) -> None:
        """Give the device's memory back; a checkpoint that is still being written is left: the one before it stays newest."""
        ...


WhileWaiting = Callable[[Worker | None, int | None], None]
"""Called with a worker and the steps of its block that are trained; with None where that is not known."""


class Engine(Protocol):
    """Where workers run."""

    def preflight(self, experiment: Experiment) -> tuple[StreamFacts, ...]:
        """Check every stream: model, hooks, dataset, weights to start from; no language model is loaded.

        Raises:
            UserError: Something does not fit together.
        """
        ...

    def devices(self, experiment: Experiment) -> tuple[str, ...]:
        """Return the device of each worker that the experiment asks for; an empty name is `base.device`.

        Raises:
            UserError: There are not so many.
        """
        ...

    def has_room(self, plan: WorkerPlan) -> bool:
        """Return whether another worker could be opened now, in the place of one that is gone."""
        ...

    def open(self, plan: WorkerPlan, experiment: Experiment) -> Worker:
        """Open a worker, which goes back to its last checkpoint; perhaps it is still being opened when this returns.

        Args:
            plan: What it opens.
            experiment: The plan's, loaded.

        Raises:
            UserError: The model or the data cannot be had, or memory holds no SAE.
        """
        ...

    def next_report(self, workers: Sequence[Worker], while_waiting: WhileWaiting) -> tuple[Worker, BlockReport]:
        """Return the next report of the workers that train a block.

        Args:
            workers: Those that were started.
            while_waiting: Called now and then in the meantime.

        Raises:
            OutOfMemory: A worker has no memory left.
            WorkerLost: A worker is gone.
        """
        ...

    def release(self) -> None:
        """Give everything back that is kept from one worker to the next, such as a language model."""
        ...
