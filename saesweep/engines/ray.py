"""The worker as a Ray actor: on another machine, or on this one. A killed actor is started again and repeats its work.

Everything that passes is JSON text. Errors come back as values, so that they arrive as what they are. The run directory must
be at the same path on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray
import torch

from saesweep.engines.protocol import OutOfMemory, Worker
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
from saesweep.errors import UserError
from saesweep.experiment import Experiment, load_experiment
from saesweep.models import resolve_device
from saesweep.plugins import load_plugin, named_plugins
from saesweep.specs import RaySpec
from saesweep.worker.loaded_model import LoadedModel
from saesweep.worker.preflight import preflight
from saesweep.worker.worker import DeviceWorker

Answer = tuple[str, Any]
"""What became of a call: ("value", it), or the kind of an error and what it was made of."""
_POLL_SECONDS = 0.2


class RayActor:
    """Runs in a process of Ray's. Its constructor is called again where that process has died, and then the call."""

    def __init__(self, plan: str, plugins: Sequence[str], threads: int) -> None:
        self._plan = WorkerPlan.from_json(plan)
        self._plugins = plugins
        self._worker: DeviceWorker | None = None
        torch.set_num_threads(threads)

    def open(self) -> Answer:
        """Open the worker."""
        return _answer(lambda: self._opened().opened.to_json())

    def block(self, request: str) -> Answer:
        """Train a block."""
        return _answer(lambda: self._opened().block(BlockRequest.from_json(request)).to_json())

    def save(self, request: str) -> Answer:
        """Write a checkpoint."""
        return _answer(lambda: self._opened().save(SaveRequest.from_json(request)).to_json())

    def test(self, trial: str) -> Answer:
        """Measure a finished trial on the `test` part."""
        return _answer(lambda: self._opened().test(Finished.from_json(trial)).to_json())

    def compare(self, trials: Sequence[str], metric: str) -> Answer:
        """Measure finished trials on the same contexts."""
        return _answer(lambda: self._opened().compare([Finished.from_json(trial) for trial in trials], metric))

    def stderr(self, weights: Mapping[int, float]) -> Answer:
        """Return the standard error of a weighted sum."""
        return _answer(lambda: self._opened().stderr(weights))

    def export(self, export: str) -> Answer:
        """Copy a finished trial's SAE."""
        return _answer(lambda: self._opened().export(Export.from_json(export)))

    def _opened(self) -> DeviceWorker:
        if self._worker is None:
            for plugin in self._plugins:
                load_plugin(plugin)
            self._worker = DeviceWorker(self._plan, load_experiment(dict(self._plan.experiment)), LoadedModel())
        return self._worker


def _answer(call: Callable[[], Any]) -> Answer:
    try:
        return "value", call()
    except OutOfMemory as error:
        return "memory", (error.reason, error.is_measuring)
    except UserError as error:
        return "user", str(error)
    except ValueError as error:
        return "wrong", str(error)


def _value(answer: Answer) -> Any:
    """Return a call's value, or raise its error."""
    kind, found = answer
    if kind == "value":
        return found
    if kind == "memory":
        raise OutOfMemory(*found)
    raise UserError(found) if kind == "user" else ValueError(found)


class RayWorker:
    """A worker whose calls go to an actor."""

    def __init__(self, plan: WorkerPlan, *, device: torch.device) -> None:
        threads = torch.get_num_threads()
        # Ray gives an actor without processors one thread, and one without GPUs all that it sees.
        options = {"num_cpus": threads, "num_gpus": int(device.type == "cuda")}
        actor = ray.remote(max_restarts=-1, max_task_retries=-1, **options)(RayActor)
        self.actor: Any = actor.remote(plan.to_json(), named_plugins(), threads)
        self.pending: Any = None
        try:
            self.opened = Opened.from_json(self._call("open"))
        except BaseException:
            self.close()
            raise

    def _call(self, name: str, *args: Any) -> Any:
        return _value(ray.get(getattr(self.actor, name).remote(*args)))

    def start(self, request: BlockRequest) -> None:
        """Begin a block; `RayEngine.next_report` has its report."""
        self.pending = self.actor.block.remote(request.to_json())

    def save(self, request: SaveRequest) -> SaveReply:
        """Write a checkpoint and wait for it."""
        return SaveReply.from_json(self._call("save", request.to_json()))

    def test(self, trial: Finished) -> Tested:
        """Measure a finished trial on the `test` part."""
        return Tested.from_json(self._call("test", trial.to_json()))

    def compare(self, trials: Sequence[Finished], metric: str) -> None:
        """Measure finished trials on the same contexts of `select`, for `stderr`."""
        self._call("compare", [trial.to_json() for trial in trials], metric)

    def stderr(self, weights: Mapping[int, float]) -> float | None:
        """Return the standard error over contexts of a weighted sum of compared trials' metric; None where not known."""
        found: float | None = self._call("stderr", dict(weights))
        return found

    def export(self, export: Export) -> None:
        """Copy a finished trial's SAE to a folder."""
        self._call("export", export.to_json())

    def close(self) -> None:
        """End the actor's process: its memory goes back with it, and a checkpoint that it is writing is left."""
        ray.kill(self.actor, no_restart=True)


class RayEngine:
    """Runs workers as actors of a Ray cluster.

    Args:
        spec: Which cluster.

    Raises:
        UserError: It cannot be reached.
    """

    def __init__(self, spec: RaySpec) -> None:
        if ray.is_initialized():
            return
        try:
            ray.init(address=spec.address, include_dashboard=False, log_to_driver=False, logging_level="error")
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UserError(
                f"engine.ray.address: no Ray cluster at {spec.address or 'RAY_ADDRESS'}: {error}"
            ) from error

    def preflight(self, experiment: Experiment) -> tuple[StreamFacts, ...]:
        """Check every stream; no language model is loaded.

        Raises:
            UserError: Something does not fit together.
        """
        return preflight(experiment)

    def open(self, plan: WorkerPlan, experiment: Experiment) -> RayWorker:
        """Open a worker, which goes back to its last checkpoint.

        Raises:
            UserError: The model or the data cannot be had, or memory holds no SAE.
        """
        return RayWorker(plan, device=resolve_device(experiment.base_run().device))

    def next_report(
        self, workers: Sequence[Worker], while_waiting: Callable[[int | None], None]
    ) -> tuple[Worker, BlockReport]:
        """Return the next report of the workers that train a block."""
        started = {one.pending: one for one in workers if isinstance(one, RayWorker) and one.pending is not None}
        while True:
            ready, _ = ray.wait(list(started), timeout=_POLL_SECONDS)
            if ready:
                worker = started[ready[0]]
                worker.pending = None
                return worker, BlockReport.from_json(_value(ray.get(ready[0])))
            while_waiting(None)

    def release(self) -> None:
        """Nothing stays between two workers: a process ends with each."""
