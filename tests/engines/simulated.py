"""Several workers in one process that train nothing: they count steps, keep checkpoints and logs as real ones do, and die.

Which worker reports next is drawn at random, so that a test sees orders of arrival that no machine would show it twice.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saesweep.engines.protocol import OutOfMemory, Worker, WorkerLost
from saesweep.engines.records import (
    BlockReport,
    BlockRequest,
    Commands,
    Export,
    Finished,
    Opened,
    Place,
    SaveReply,
    SaveRequest,
    Scores,
    StreamFacts,
    Tested,
    TrialReport,
    WorkerPlan,
)
from saesweep.experiment import Experiment
from saesweep.runs import CheckpointStore, RunDirectory
from saesweep.worker.checkpoint import Journal
from tests.engines.scripted import made_up_metrics


class Killed(BaseException):
    """The driver's process ends here, without a chance to do anything."""


@dataclass
class Seat:
    """One trial in a slot."""

    slot: int
    joined_at_tokens: int
    step: int = 0


class SimulatedWorker:
    """Counts the steps of its trials.

    Args:
        plan: What it opens.
        experiment: The plan's.
        n_slots: Of its own; halved slots are kept in the run directory.
        checkpoint_blocks: How often it wants a checkpoint.
    """

    is_opened = True

    def __init__(self, plan: WorkerPlan, experiment: Experiment, n_slots: int, checkpoint_blocks: int) -> None:
        run = experiment.base_run()
        assert run.sae.d_in is not None
        directory = RunDirectory(Path(plan.run_dir))
        if plan.stream:
            directory = directory.of_stream(plan.stream_folder)
        self.directory = directory.of_worker(plan.folder)
        self.number = 0 if not plan.folder else int(plan.folder.rpartition("/")[2])
        self.batch_tokens, self.total_steps = run.train_batch_size_tokens, run.total_steps
        self._every = checkpoint_blocks
        choices = self.directory.choices()
        self.n_slots = choices.setdefault("slots", n_slots)
        self.directory.save_choices(choices)
        self._store = CheckpointStore(self.directory.checkpoints)
        self._journal = Journal(self.directory.requests_file)
        self.seats: dict[int, Seat] = {}
        self._block, self._steps = plan.first_block, 0
        self._label = plan.stream
        self.request: BlockRequest | None = None
        self._report: BlockReport | None = None
        checkpoint, _ = self._store.load_latest()
        kept = {} if checkpoint is None else checkpoint.state["seats"]
        self._waiting = {int(number): Seat(**seat) for number, seat in kept.items()}
        if checkpoint is not None:
            self._block = checkpoint.block
            if checkpoint.state["label"] == plan.stream:
                self._steps = checkpoint.state["steps"]
            else:
                self._block = max(self._block, plan.first_block)
            for number, seat in list(self._waiting.items()):
                if seat.slot < self.n_slots:
                    self.seats[number] = self._waiting.pop(number)
        self._saved_before = self._block
        self.opened = Opened(
            d_in={run.hook_name: run.sae.d_in},
            has_lm_head=False,
            n_slots=self.n_slots,
            device=plan.device or "cpu",
            has_sinks=False,
            notes=(),
            details=(),
            registered_metrics=(),
            block=self._block,
            stream_tokens=self._steps * self.batch_tokens,
            driver=None if checkpoint is None else checkpoint.state["driver"],
            last_block=self._journal.last_after(self._block),
            steps={int(number): seat["step"] for number, seat in kept.items()},
        )

    def start(self, request: BlockRequest) -> None:
        assert self.request is None, "a block is asked for while another one trains"
        self.request = request

    def report(self) -> BlockReport:
        assert self.request is not None
        request, self.request = self.request, None
        if self._report is not None and request.number == self._report.number:
            return self._report
        assert request.number > self._block
        for earlier in self._journal.between(self._block + 1, request.number - 1):
            self._run(earlier)
        self._journal.add(request)
        return self._run(request)

    def _run(self, request: BlockRequest) -> BlockReport:
        self._carry_out(request.commands)
        if request.save is not None:
            self._checkpoint(request.save)
        self._steps += request.steps
        found = {}
        for number in sorted(self.seats, key=lambda n: self.seats[n].slot):
            seat = self.seats[number]
            seat.step = min(seat.step + request.steps, self.total_steps)
            tokens, scores = seat.step * self.batch_tokens, None
            if number in request.measure or seat.step == self.total_steps:
                metrics = made_up_metrics(number, tokens)
                scores = Scores(metrics=metrics, spread={}, replicates=(metrics,), dead_window_tokens=1000)
            found[number] = TrialReport(
                tokens=tokens,
                step=seat.step,
                joined_at_tokens=seat.joined_at_tokens,
                is_finite=True,
                values={"losses/overall_loss": 1.0},
                scores=scores,
            )
        self._block = request.number
        self._report = BlockReport(
            number=request.number,
            trials=found,
            stream_tokens=self._steps * self.batch_tokens,
            epoch=0,
            seconds=0.01,
            skipped_batches=0,
            unreadable_rows=0,
            wants_checkpoint=request.number % self._every == 0,
        )
        return self._report

    def _carry_out(self, commands: Commands) -> None:
        for number in commands.remove:
            self._waiting.pop(number, None)
            self.seats.pop(number, None)
        for place in commands.place:
            self._place(place)

    def _place(self, place: Place) -> None:
        if place.number in self.seats and self.seats[place.number].slot == place.slot:
            return
        taken = {seat.slot for number, seat in self.seats.items() if number != place.number}
        assert place.slot not in taken, f"slot {place.slot} is taken"
        assert place.slot < self.n_slots
        seat = self._waiting.pop(place.number, None)
        if seat is None and place.source is not None:
            checkpoint, _ = CheckpointStore(self.directory.of_worker(place.source).checkpoints).load_latest()
            data = None if checkpoint is None else checkpoint.state["seats"].get(str(place.number))
            seat = None if data is None else Seat(**data)
        joined = self._steps * self.batch_tokens
        self.seats[place.number] = seat or Seat(slot=place.slot, joined_at_tokens=joined)
        self.seats[place.number].slot = place.slot

    def _checkpoint(self, driver: Mapping[str, Any]) -> None:
        self._journal.forget(self._saved_before + 1)
        self._saved_before = self._block
        seats = {str(number): vars(seat) for number, seat in {**self._waiting, **self.seats}.items()}
        slots = [{"trial": int(number), "step": seat["step"]} for number, seat in seats.items()]
        state = {"seats": seats, "slots": slots, "steps": self._steps, "label": self._label, "driver": driver}
        self._store.save(self._block, state, {})

    def save(self, request: SaveRequest) -> SaveReply:
        self._carry_out(request.commands)
        self._checkpoint(request.driver)
        return SaveReply(saved=())

    def test(self, trial: Finished) -> Tested:
        return Tested(metrics=made_up_metrics(trial.number, self.total_steps * self.batch_tokens), spread={})

    def compare(self, trials: Sequence[Finished], metric: str) -> None:
        pass

    def stderr(self, weights: Mapping[int, float]) -> float | None:
        return None

    def export(self, export: Export) -> None:
        Path(export.target).mkdir(parents=True, exist_ok=True)

    def close(self) -> None:
        pass


@dataclass
class SimulatedEngine:
    """Runs simulated workers, and lets them fail as a test wants it."""

    n_workers: int
    n_slots: int = 2
    seed: int = 0
    checkpoint_blocks: int = 2
    kill_after: int | None = None
    """The driver is killed instead of getting the report of this number."""
    lose: float = 0.0
    """Probability that a worker is lost instead of reporting."""
    forget: float = 0.0
    """Probability that it has no memory left instead."""
    rejoin: bool = True
    """There is a device again for a worker that was lost."""
    reports: list[tuple[int, int]] = field(default_factory=list)
    """(worker, block) in the order of arrival."""
    opened: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._dice = random.Random(self.seed)

    def preflight(self, experiment: Experiment) -> tuple[StreamFacts, ...]:
        from saesweep.experiment import streams_of

        found = []
        for stream in streams_of(experiment):
            run = stream.experiment.base_run()
            assert run.sae.d_in is not None
            found.append(StreamFacts(label=stream.label, d_in={run.hook_name: run.sae.d_in}, has_lm_head=False))
        return tuple(found)

    def devices(self, experiment: Experiment) -> tuple[str, ...]:
        return ("",) * self.n_workers

    def has_room(self, plan: WorkerPlan) -> bool:
        return self.rejoin

    def open(self, plan: WorkerPlan, experiment: Experiment) -> SimulatedWorker:
        worker = SimulatedWorker(plan, experiment, self.n_slots, self.checkpoint_blocks)
        self.opened.append(worker.number)
        return worker

    def next_report(
        self, workers: Sequence[Worker], while_waiting: Callable[[Worker | None, int | None], None]
    ) -> tuple[Worker, BlockReport]:
        started = [one for one in workers if isinstance(one, SimulatedWorker) and one.request is not None]
        assert started, "no worker trains, and yet a report is waited for"
        worker = self._dice.choice(started)
        if len(self.reports) == self.kill_after:
            raise Killed
        while_waiting(worker, 1)
        fault: WorkerLost | OutOfMemory | None = None
        if self._dice.random() < self.lose:
            fault = WorkerLost("its machine does not answer")
        elif self._dice.random() < self.forget:
            fault = OutOfMemory("no memory left", False)
        if fault is not None:
            fault.worker = worker
            raise fault
        report = worker.report()
        self.reports.append((worker.number, report.number))
        return worker, report

    def release(self) -> None:
        pass
