"""One worker in this process: no copies, no other processes, the same bits whenever."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from saesweep.engines.devices import visible_gpus, worker_devices
from saesweep.engines.protocol import WhileWaiting, Worker
from saesweep.engines.records import BlockReport, BlockRequest, StreamFacts, WorkerPlan
from saesweep.experiment import Experiment
from saesweep.worker.preflight import preflight
from saesweep.worker.setup import LoadedModel
from saesweep.worker.worker import DeviceWorker


class LocalWorker(DeviceWorker):
    """A worker that trains when its report is asked for."""

    request: BlockRequest | None = None
    is_opened = True

    def start(self, request: BlockRequest) -> None:
        """Begin a block; `LocalEngine.next_report` trains it."""
        self.request = request


class LocalEngine:
    """Runs workers in this process, one at a time; a language model that the next one reads too stays loaded."""

    def __init__(self) -> None:
        self._loaded = LoadedModel()

    def preflight(self, experiment: Experiment) -> tuple[StreamFacts, ...]:
        """Check every stream; no language model is loaded.

        Raises:
            UserError: Something does not fit together.
        """
        return preflight(experiment)

    def devices(self, experiment: Experiment) -> tuple[str, ...]:
        """Return the device of the only worker."""
        return worker_devices(experiment, visible_gpus())[:1]

    def has_room(self, plan: WorkerPlan) -> bool:
        """Return False: memory that has run out here is gone for all."""
        return False

    def open(self, plan: WorkerPlan, experiment: Experiment) -> LocalWorker:
        """Open a worker, which goes back to its last checkpoint.

        Raises:
            UserError: The model or the data cannot be had, or memory holds no SAE.
        """
        return LocalWorker(plan, experiment, self._loaded)

    def next_report(self, workers: Sequence[Worker], while_waiting: WhileWaiting) -> tuple[Worker, BlockReport]:
        """Train the block of the first worker that was started and return its report."""
        for worker in workers:
            if isinstance(worker, LocalWorker) and worker.request is not None:
                request, worker.request = worker.request, None
                return worker, worker.block(request, partial(while_waiting, worker))
        raise ValueError("no worker was started")

    def release(self) -> None:
        """Give the memory of the language model back."""
        self._loaded.drop()
