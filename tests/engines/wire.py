"""The local engine with everything that passes sent as JSON text: what an engine between machines does, in one process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from saesweep.engines.local import LocalEngine
from saesweep.engines.records import (
    BlockReport,
    BlockRequest,
    Export,
    Finished,
    Message,
    SaveReply,
    SaveRequest,
    StreamFacts,
    Tested,
    WorkerPlan,
)
from saesweep.experiment import Experiment, load_experiment

M = TypeVar("M", bound=Message)


def sent(message: M) -> M:
    """Return a message after its trip, checked to be the same."""
    arrived = type(message).from_json(message.to_json())
    assert arrived.to_json() == message.to_json()
    return arrived


class WireWorker:
    """A worker at the other end."""

    def __init__(self, plan: WorkerPlan, engine: LocalEngine) -> None:
        tree: dict[str, Any] = dict(plan.experiment)
        self.inner = engine.open(plan, load_experiment(tree))
        self.opened = sent(self.inner.opened)
        self.is_opened = True

    def start(self, request: BlockRequest) -> None:
        self.inner.start(sent(request))

    def save(self, request: SaveRequest) -> SaveReply:
        return sent(self.inner.save(sent(request)))

    def test(self, trial: Finished) -> Tested:
        return sent(self.inner.test(sent(trial)))

    def compare(self, trials: Sequence[Finished], metric: str) -> None:
        self.inner.compare([sent(trial) for trial in trials], metric)

    def stderr(self, weights: Mapping[int, float]) -> float | None:
        return self.inner.stderr(weights)

    def export(self, export: Export) -> None:
        self.inner.export(sent(export))

    def close(self) -> None:
        self.inner.close()


class WireEngine:
    """An engine whose workers get and give text alone."""

    def __init__(self) -> None:
        self._inner = LocalEngine()

    def preflight(self, experiment: Experiment) -> tuple[StreamFacts, ...]:
        return tuple(sent(facts) for facts in self._inner.preflight(experiment))

    def devices(self, experiment: Experiment) -> tuple[str, ...]:
        return ("",)

    def has_room(self, plan: WorkerPlan) -> bool:
        return False

    def open(self, plan: WorkerPlan, experiment: Experiment) -> WireWorker:
        return WireWorker(sent(plan), self._inner)

    def next_report(
        self, workers: Sequence[WireWorker], while_waiting: Callable[[Any, int | None], None]
    ) -> tuple[WireWorker, BlockReport]:
        outer = {id(worker.inner): worker for worker in workers}

        def waiting(inner: Any, steps: int | None) -> None:
            while_waiting(outer[id(inner)], steps)

        found, report = self._inner.next_report([worker.inner for worker in workers], waiting)
        return outer[id(found)], sent(report)

    def release(self) -> None:
        self._inner.release()
