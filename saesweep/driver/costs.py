"""The cost table of a run: every call to a worker is timed here, and what a worker says about a block is added."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress

from saesweep.costs import KINDS, Kind, Stopwatch
from saesweep.driver.progress import Pace
from saesweep.engines.protocol import Engine, WhileWaiting, Worker, WorkerFault
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
from saesweep.runs import RunDirectory, read_costs, write_costs


class CostBook:
    """Adds up the seconds of a run over all its starts and keeps them in its directory.

    Work that was lost to a kill and done again counts twice: these are the seconds that went, not those that were needed.

    Args:
        directory: The run directory, opened.

    Raises:
        UserError: What earlier starts left there is damaged.
    """

    def __init__(self, directory: RunDirectory) -> None:
        self._directory = directory
        self._earlier = read_costs(directory.costs_file)
        self._started = time.perf_counter()
        self._seconds: dict[Kind, float] = {}
        self._pace = Pace()
        self.kept_costs: Mapping[Kind, float] = {}
        """What was written last."""

    @contextmanager
    def spending(self, kind: Kind) -> Iterator[None]:
        """Count the time of the context under this kind."""
        watch = Stopwatch()
        try:
            with watch.spending(kind):
                yield
        finally:
            self.add(watch.taken())

    def add(self, costs: Mapping[Kind, float]) -> None:
        """Add seconds, and write the table where it is time."""
        for kind, seconds in costs.items():
            self._seconds[kind] = self._seconds.get(kind, 0.0) + seconds
        if self._pace.is_due():
            with self._pace.taking():
                self.write()

    def count_rest_as_set_up(self) -> None:
        """Count what nothing was said about since the start as set-up: libraries that are loaded, a study that is opened."""
        self.add({"set_up": max(0.0, self._unattributed())})

    def _unattributed(self) -> float:
        return time.perf_counter() - self._started - sum(self._seconds.values())

    def costs(self) -> dict[Kind, float]:
        """Return the seconds of each kind, of all starts and all workers; what nothing was said about is `other`.

        Several workers spend more seconds than pass, so that nothing is left over for `other`.
        """
        now: dict[Kind, float] = {**self._seconds, "other": max(0.0, self._unattributed())}
        return {kind: round(self._earlier.get(kind, 0.0) + now.get(kind, 0.0), 3) for kind in KINDS}

    def write(self) -> None:
        """Keep the seconds so far."""
        self._directory.check_is_held()
        self.kept_costs = self.costs()
        write_costs(self._directory.costs_file, self.kept_costs)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep the seconds at the end of the context, however it comes about."""
        try:
            yield
        except BaseException:
            with suppress(OSError, UserError):  # the disk may be full, or the folder gone: the error at hand says so
                self.write()
            raise
        self.write()


class TimedEngine:
    """An engine whose calls are counted in the cost table.

    Args:
        engine: Does the work.
        book: The table.
    """

    def __init__(self, engine: Engine, book: CostBook) -> None:
        self._engine = engine
        self._book = book
        self._has_begun = False

    def preflight(self, experiment: Experiment) -> tuple[StreamFacts, ...]:
        """Check every stream."""
        with self._book.spending("set_up"):
            return self._engine.preflight(experiment)

    def devices(self, experiment: Experiment) -> tuple[str, ...]:
        """Return the device of each worker that the experiment asks for."""
        return self._engine.devices(experiment)

    def has_room(self, plan: WorkerPlan) -> bool:
        """Return whether another worker could be opened now."""
        return self._engine.has_room(plan)

    def open(self, plan: WorkerPlan, experiment: Experiment) -> TimedWorker:
        """Open a worker."""
        started = time.perf_counter()
        with self._book.spending("set_up"):
            inner = self._engine.open(plan, experiment)
        return TimedWorker(inner, self._book, time.perf_counter() - started)

    def next_report(self, workers: Sequence[Worker], while_waiting: WhileWaiting) -> tuple[Worker, BlockReport]:
        """Return the next report, whose costs are added."""
        if not self._has_begun:
            self._has_begun = True
            self._book.count_rest_as_set_up()
        timed = {id(worker.inner): worker for worker in workers if isinstance(worker, TimedWorker)}
        try:
            found, report = self._engine.next_report(
                [worker.inner for worker in timed.values()],
                lambda inner, steps: while_waiting(None if inner is None else timed[id(inner)], steps),
            )
        except WorkerFault as fault:
            if fault.worker is not None:
                fault.worker = timed[id(fault.worker)]
            raise
        self._book.add(report.costs)
        return timed[id(found)], report

    def release(self) -> None:
        """Give everything back that is kept from one worker to the next."""
        self._engine.release()


class TimedWorker:
    """A worker whose calls are counted in the cost table; blocks are, by the worker itself.

    Args:
        inner: Does the work.
        book: The table.
        waited: Seconds for which its opening was waited for, counted as set-up.
    """

    def __init__(self, inner: Worker, book: CostBook, waited: float = 0.0) -> None:
        self.inner = inner
        self._book = book
        self._opened: Opened | None = None
        self._waited = waited

    @property
    def opened(self) -> Opened:
        """What it found when it was opened; waits for it."""
        if self._opened is None:
            started = time.perf_counter()
            with self._calling("set_up"):
                self._opened = self.inner.opened
            # Its measuring was counted as set-up, as far as anybody waited for it: here, or while it was opened.
            waited = self._waited + time.perf_counter() - started
            self._book.add({**self._opened.costs, "set_up": -min(waited, sum(self._opened.costs.values()))})
        return self._opened

    @property
    def is_opened(self) -> bool:
        """Whether `opened` is there without waiting."""
        return self.inner.is_opened

    def start(self, request: BlockRequest) -> None:
        """Begin a block."""
        with self._calling():
            self.inner.start(request)

    def save(self, request: SaveRequest) -> SaveReply:
        """Write a checkpoint and wait for it."""
        with self._calling("saving"):
            return self.inner.save(request)

    def test(self, trial: Finished) -> Tested:
        """Measure a finished trial on the `test` part."""
        with self._calling("measuring_ends"):
            return self.inner.test(trial)

    def compare(self, trials: Sequence[Finished], metric: str) -> None:
        """Measure finished trials on the same contexts of `select`."""
        with self._calling("measuring_ends"):
            self.inner.compare(trials, metric)

    def stderr(self, weights: Mapping[int, float]) -> float | None:
        """Return the standard error over contexts of a weighted sum."""
        with self._calling():
            return self.inner.stderr(weights)

    def export(self, export: Export) -> None:
        """Copy a finished trial's SAE to a folder."""
        with self._calling("saving"):
            self.inner.export(export)

    def close(self) -> None:
        """Give the device's memory back."""
        self.inner.close()

    @contextmanager
    def _calling(self, kind: Kind | None = None) -> Iterator[None]:
        """Count a call under this kind; whose fault it is, is said of this worker, which is the one that the driver knows."""
        try:
            with nullcontext() if kind is None else self._book.spending(kind):
                yield
        except WorkerFault as fault:
            if fault.worker is self.inner:
                fault.worker = self
            raise
