"""What runs in a process of Ray's: a worker whose calls take and give JSON text."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
import torch

from saesweep.engines.protocol import OutOfMemory
from saesweep.engines.records import BlockRequest, Export, Finished, SaveRequest, WorkerPlan
from saesweep.errors import UserError
from saesweep.experiment import load_experiment
from saesweep.plugins import load_plugin
from saesweep.runs import RunDirectory
from saesweep.worker.setup import LoadedModel
from saesweep.worker.worker import DeviceWorker

Answer = tuple[str, Any]
"""What became of a call: ("value", it), or the kind of an error and what it was made of."""


class RayActor:
    """Holds a worker. Calls come one at a time, but for `steps`, which is answered while a block trains.

    Args:
        plan: What to open.
        plugins: Files and modules to load before.
        threads: Of the processor, for PyTorch.
    """

    def __init__(self, plan: str, plugins: Sequence[str], threads: int) -> None:
        self._plan = WorkerPlan.from_json(plan)
        self._plugins = plugins
        self._threads = threads
        self._worker: DeviceWorker | None = None
        self._steps = 0

    def machine(self) -> str:
        """Return Ray's name of the machine that this process is on."""
        found: str = ray.get_runtime_context().get_node_id()
        return found

    def open(self) -> Answer:
        """Open the worker."""
        return self._answer(lambda: self._opened().opened.to_json())

    def block(self, request: str) -> Answer:
        """Train a block."""
        self._steps = 0
        started, requested = time.monotonic(), BlockRequest.from_json(request)
        answer = self._answer(lambda: self._opened().block(requested, self._set_steps).to_json())
        print(f"{_now()} block {requested.number}: {answer[0]}, {time.monotonic() - started:.1f} s", flush=True)
        return answer

    @ray.method(concurrency_group="progress")  # type: ignore[untyped-decorator]
    def steps(self) -> int:
        """Return the steps of the block that are trained."""
        return self._steps

    def save(self, request: str) -> Answer:
        """Write a checkpoint."""
        return self._answer(lambda: self._opened().save(SaveRequest.from_json(request)).to_json())

    def test(self, trial: str) -> Answer:
        """Measure a finished trial on the `test` part."""
        return self._answer(lambda: self._opened().test(Finished.from_json(trial)).to_json())

    def compare(self, trials: Sequence[str], metric: str) -> Answer:
        """Measure finished trials on the same contexts."""
        return self._answer(lambda: self._opened().compare([Finished.from_json(trial) for trial in trials], metric))

    def stderr(self, weights: Mapping[int, float]) -> Answer:
        """Return the standard error of a weighted sum."""
        return self._answer(lambda: self._opened().stderr(weights))

    def export(self, export: str) -> Answer:
        """Copy a finished trial's SAE."""
        return self._answer(lambda: self._opened().export(Export.from_json(export)))

    def _set_steps(self, steps: int) -> None:
        self._steps = steps

    def _opened(self) -> DeviceWorker:
        if self._worker is None:
            log = RunDirectory(Path(self._plan.run_dir)).of_worker(self._plan.folder).log_file
            _write_to(log)
            print(f"{_now()} process {os.getpid()} on {os.uname().nodename} opens {self._plan.stream or 'its stream'}")
            for plugin in self._plugins:
                load_plugin(plugin)
            self._worker = DeviceWorker(self._plan, load_experiment(dict(self._plan.experiment)), LoadedModel())
        return self._worker

    def _answer(self, call: Callable[[], Any]) -> Answer:
        torch.set_num_threads(self._threads)  # of the thread that calls come on, which is not the constructor's
        try:
            return "value", call()
        except OutOfMemory as error:
            return "memory", (error.reason, error.is_measuring)
        except UserError as error:
            return "user", str(error)
        except ValueError as error:
            return "wrong", str(error)


def _write_to(file: Path) -> None:
    """Let everything that this process says go to a file of the run directory."""
    file.parent.mkdir(parents=True, exist_ok=True)
    target = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os.dup2(target, 1)
    os.dup2(target, 2)
    os.close(target)
    # Ray has put objects of its own in their place, which do not write to these descriptors.
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", buffering=1, closefd=False)


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")
