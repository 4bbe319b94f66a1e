"""Workers as Ray actors, one on each device: on this machine, or on others. One that is killed is started again.

Everything that passes is JSON text. Errors come back as values, so that they arrive as what they are. The run directory must
be at the same path on every machine.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import ray
import torch
from ray.exceptions import ObjectLostError, RayActorError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from saesweep.engines.devices import visible_gpus, worker_devices
from saesweep.engines.protocol import OutOfMemory, WhileWaiting, Worker, WorkerLost
from saesweep.engines.ray_actor import Answer, RayActor
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
from saesweep.experiment import Experiment
from saesweep.models import resolve_device
from saesweep.plugins import named_plugins
from saesweep.specs import RaySpec
from saesweep.worker.preflight import preflight

MAX_RESTARTS = 3
"""A worker whose process ends so often in one block is taken to lack memory: the system kills such a process without a word."""
_POLL_SECONDS = 0.2
_CONNECT_SECONDS = 20.0
"""How long to wait for a cluster that does not answer; Ray itself tries for a quarter of an hour."""
_GONE = (RayActorError, ObjectLostError)
"""What a call raises whose process has ended, or whose answer lay on a machine that is gone."""


def _value(answer: Answer) -> Any:
    """Return a call's value, or raise its error."""
    kind, found = answer
    if kind == "value":
        return found
    if kind == "memory":
        raise OutOfMemory(*found)
    raise UserError(found) if kind == "user" else ValueError(found)


class RayWorker:
    """A worker whose calls go to an actor. Where the actor's process ends, another one is started and the call repeated.

    Args:
        plan: What to open.
        options: What it takes of a machine.
        threads: Of the processor, for PyTorch.
        restart_seconds: How long a process may take to be started again, with the wait for a device.
    """

    def __init__(self, plan: WorkerPlan, options: Mapping[str, Any], threads: int, restart_seconds: float) -> None:
        self._plan = plan
        self._options = options
        self._threads = threads
        self._restart_seconds = restart_seconds
        self._deadline: float | None = None
        """Until when the process that is started again must have begun; None once it has."""
        self._opened: Opened | None = None
        self._request: BlockRequest | None = None
        self._ends = 0
        """How often the process has ended in this call, though its machine was there."""
        self.actor: Any = None
        self.pending: Any = None
        self.progress: Any = None
        self._begin()

    def _begin(self) -> None:
        options = {**self._options, "concurrency_groups": {"progress": 1}}
        actor = ray.remote(max_restarts=0, **options)(RayActor)
        self.actor = actor.remote(self._plan.to_json(), named_plugins(), self._threads)
        self._machine = self.actor.machine.remote()
        self._opening = self.actor.open.remote()
        self.progress = None

    @property
    def is_opened(self) -> bool:
        """Whether `opened` is there without waiting."""
        return self._opened is not None or bool(ray.wait([self._opening], timeout=0)[0])

    @property
    def opened(self) -> Opened:
        """What it found when it was opened."""
        while self._opened is None:
            try:
                self._opened = Opened.from_json(self.answer(self._opening))
            except _GONE as error:
                self.restart(error)
        return self._opened

    def restart(self, error: RayError) -> None:
        """Begin to start another process in the place of one that has ended; other workers continue meanwhile.

        Raises:
            OutOfMemory: It has ended too often in one call.
        """
        self._ends += not self._has_lost_its_machine()
        self.close()  # one that is only out of reach must not write to the same folder
        if self._ends > MAX_RESTARTS:
            reason = f"its process ended {self._ends} times in the same call, as where the system kills it for memory"
            fault = OutOfMemory(reason, False)
            fault.worker = self
            raise fault from error
        self._begin()
        self._deadline = time.monotonic() + self._restart_seconds

    def check_started(self) -> None:
        """Give a worker up whose process was to be started again and has not begun in time.

        Raises:
            WorkerLost: It has.
        """
        if self._deadline is None:
            return
        if ray.wait([self._machine], timeout=0)[0]:  # it has begun, or the next call says that it has ended once more
            self._deadline = None
        elif time.monotonic() > self._deadline:
            self.pending = None
            self.close()
            fault = WorkerLost(
                f"its process ended, and no other one has started in its place within {self._restart_seconds:g} s"
            )
            fault.worker = self
            raise fault

    def _has_lost_its_machine(self) -> bool:
        """Return whether the machine that the process began on is no part of the cluster any more."""
        try:
            machine = ray.get(self._machine, timeout=0)
        except RayError:  # it has not even begun
            return False
        return not any(node["NodeID"] == machine and node["Alive"] for node in ray.nodes())

    def answer(self, call: Any) -> Any:
        """Wait for a call's value."""
        while not ray.wait([call], timeout=_POLL_SECONDS)[0]:
            self.check_started()
        try:
            return _value(ray.get(call))
        except OutOfMemory as error:
            error.worker = self
            raise

    def _call(self, name: str, *args: Any) -> Any:
        self._ends = 0
        while True:
            try:
                return self.answer(getattr(self.actor, name).remote(*args))
            except _GONE as error:
                self.restart(error)

    def start(self, request: BlockRequest) -> None:
        """Begin a block; `RayEngine.next_report` has its report."""
        self._request, self._ends = request, 0
        self.again()

    def again(self) -> None:
        """Ask for the block; an actor that has not begun yet takes it up then, and one that was asked before repeats its report."""
        assert self._request is not None
        self.pending = self.actor.block.remote(self._request.to_json())
        self.progress = self.actor.steps.remote()

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
        experiment: How many workers it wants decides how large a cluster is where one is started here.

    Raises:
        UserError: It cannot be reached.
    """

    def __init__(self, spec: RaySpec, experiment: Experiment) -> None:
        self._restart_seconds = spec.restart_seconds
        self._is_ours = spec.address is None and not os.environ.get("RAY_ADDRESS")
        if ray.is_initialized():
            return
        own: dict[str, Any] = {}
        if self._is_ours:  # threads are divided among the workers, and each takes at least one
            own = {"num_cpus": max(os.cpu_count() or 1, len(worker_devices(experiment, visible_gpus())))}
        try:
            _check_answers(spec.address or os.environ.get("RAY_ADDRESS") or "")
            with _keeping_sigterm_handler():
                ray.init(
                    address=spec.address, include_dashboard=False, log_to_driver=False, logging_level="error", **own
                )
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

    def devices(self, experiment: Experiment) -> tuple[str, ...]:
        """Return the device of each worker: of the GPUs of the whole cluster where their number decides.

        Raises:
            UserError: There are not so many, or the cluster has too few processors.
        """
        found = worker_devices(experiment, int(ray.cluster_resources().get("GPU", 0)))
        cpus = int(ray.cluster_resources().get("CPU", 0))
        if len(found) > max(1, cpus):
            raise UserError(
                f"cohort.devices: {len(found)} workers take {len(found)} processors at least, and Ray has {cpus}; ask for "
                "fewer, or start Ray with more (`ray start --num-cpus`)"
            )
        return found

    def has_room(self, plan: WorkerPlan) -> bool:
        """Return whether the cluster has what another worker takes."""
        free, (options, _) = ray.available_resources(), _needs(plan, "")
        return bool(free.get("CPU", 0) >= options["num_cpus"] and free.get("GPU", 0) >= options["num_gpus"])

    def open(self, plan: WorkerPlan, experiment: Experiment) -> RayWorker:
        """Begin to open a worker, which goes back to its last checkpoint."""
        options, threads = _needs(plan, experiment.base_run().device)
        return RayWorker(plan, options, threads, self._restart_seconds)

    def next_report(self, workers: Sequence[Worker], while_waiting: WhileWaiting) -> tuple[Worker, BlockReport]:
        """Return the next report of the workers that train a block."""
        while True:
            started = {one.pending: one for one in workers if isinstance(one, RayWorker) and one.pending is not None}
            for worker in started.values():
                worker.check_started()
            ready, _ = ray.wait(list(started), timeout=_POLL_SECONDS)
            if ready:
                worker = started[ready[0]]
                worker.pending = None
                try:
                    return worker, BlockReport.from_json(worker.answer(ready[0]))
                except _GONE as error:
                    worker.restart(error)
                    worker.again()
                    continue
            for worker in started.values():
                while_waiting(worker, _progress(worker))

    def release(self) -> None:
        """Nothing stays between two workers: a process ends with each."""


def _check_answers(address: str) -> None:
    """Wait until somebody listens at a cluster's address.

    Raises:
        ConnectionError: Nobody does.
    """
    host, _, port = address.rpartition(":")
    if not port.isdecimal() or "/" in host:  # none, `auto` or a URL
        return
    deadline = time.monotonic() + _CONNECT_SECONDS
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise ConnectionError(error.strerror or str(error)) from error
            time.sleep(0.5)


@contextmanager
def _keeping_sigterm_handler() -> Iterator[None]:
    """Keep what SIGTERM does: Ray would end the driver at once, in mid-block."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _progress(worker: RayWorker) -> int | None:
    """Return the steps of a worker's block that are trained, as far as it has answered; ask again."""
    if worker.progress is None or not ray.wait([worker.progress], timeout=0)[0]:
        return None
    answer, worker.progress = worker.progress, worker.actor.steps.remote()
    try:
        found: int = ray.get(answer)
    except RayError:  # its process has ended: the block says so
        return None
    return found


def _needs(plan: WorkerPlan, base_device: str) -> tuple[dict[str, Any], int]:
    """Return what Ray is to reserve for a worker, and its threads: those of this process, divided among the workers."""
    threads = max(1, torch.get_num_threads() // plan.sharing)
    # Ray gives an actor without processors one thread, and one without GPUs all that it sees.
    options: dict[str, Any] = {"num_cpus": threads, "num_gpus": 0}
    name = plan.device or base_device
    if name.startswith("cuda:"):
        # That GPU of this machine, which Ray's own count does not know by its number.
        node = ray.get_runtime_context().get_node_id()
        options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node, soft=False)
    elif name == "cuda" or (not plan.device and resolve_device(base_device or "auto").type == "cuda"):
        options["num_gpus"] = 1
    return options, threads
