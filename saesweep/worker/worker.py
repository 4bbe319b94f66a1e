"""The worker: one device, one activation stream, the SAEs that train there. It carries out commands and decides nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from saesweep.cohort import Slot
from saesweep.engines.records import (
    BlockReport,
    BlockRequest,
    Commands,
    Export,
    Finished,
    Notice,
    Opened,
    Place,
    Saved,
    SaveReply,
    SaveRequest,
    SnapshotTaken,
    Tested,
    WorkerPlan,
)
from saesweep.evaluation import registered_metrics
from saesweep.experiment import Experiment, TrialSettings, settings_for, streams_of
from saesweep.runs import Checkpoint, CheckpointStore, CheckpointWriter, RunDirectory
from saesweep.worker.batches import FiniteBatches
from saesweep.worker.checkpoint import Journal, SavedSlot, saved_slots, slots_to_save
from saesweep.worker.device import stopwatch_for, translate_out_of_memory
from saesweep.worker.finals import Finals
from saesweep.worker.references import measure_references
from saesweep.worker.reporting import report_trials
from saesweep.worker.setup import LoadedModel, derive, prepare
from saesweep.worker.snapshots import Snapshots


class DeviceWorker:
    """A worker in this process. Opening it loads what is needed and goes back to the last whole checkpoint.

    Args:
        plan: What to open.
        experiment: The plan's, loaded.
        loaded: Holds the language model from one worker to the next.

    Raises:
        UserError: The model or the data cannot be had, or memory holds no SAE.
        OutOfMemory: Memory ran out while published SAEs were measured, or trials put back in their slots.
    """

    def __init__(self, plan: WorkerPlan, experiment: Experiment, loaded: LoadedModel) -> None:
        directory = RunDirectory(Path(plan.run_dir))
        if plan.stream:
            directory = directory.of_stream(plan.stream_folder)
        if plan.folder:
            directory = directory.of_worker(plan.folder)
        stream = next(stream for stream in streams_of(experiment) if stream.label == plan.stream)
        self._setup = prepare(
            experiment, stream, directory, plan.n_trials, loaded, on=plan.device, sharing=plan.sharing
        )
        self._watch = stopwatch_for(self._setup.device)
        try:
            with translate_out_of_memory():
                self._begin(plan, self._references() if plan.measures_references else ())
        except BaseException:
            self._setup.source.close()
            raise

    def _references(self) -> Sequence[Mapping[str, Any]]:
        with self._watch.spending("measuring_ends"):
            return measure_references(self._setup)

    def _begin(self, plan: WorkerPlan, references: Sequence[Mapping[str, Any]]) -> None:
        setup, cohort = self._setup, self._setup.experiment.spec.cohort
        self._label = plan.stream
        self._replicates = setup.experiment.spec.search.replicates
        self._store = CheckpointStore(setup.directory.checkpoints)
        self._writer = CheckpointWriter(
            self._store, in_background=setup.background_checkpoints, min_seconds=cohort.checkpoint_seconds
        )
        self._events: list[Notice | SnapshotTaken] = []
        self._batches = FiniteBatches(
            setup.source.stream,
            max_skipped=cohort.max_skipped_batches,
            warn=lambda message: self._events.append(Notice(level="warning", message=message)),
        )
        self._snapshots = Snapshots(setup, self._events.append, self._replicates)
        self._finals = Finals(setup)
        self._journal = Journal(setup.directory.requests_file)
        self._trials: dict[int, TrialSettings] = {}
        self._placed: dict[int, Place] = {}
        self._restored: dict[int, list[SavedSlot]] = {}
        self._block = self._saved_before = plan.first_block
        self._report: BlockReport | None = None
        checkpoint, damaged = self._store.load_latest()
        saved = {} if checkpoint is None else saved_slots(checkpoint)
        if checkpoint is not None:
            self._go_back(checkpoint, saved, plan.first_block)
        self.opened = Opened(
            d_in=dict(setup.d_in),
            has_lm_head=setup.source.model is not None and setup.source.model.has_lm_head,
            n_slots=setup.n_slots,
            device=str(setup.device),
            has_sinks=bool(setup.sinks),
            notes=tuple(setup.notes),
            details=tuple(setup.details),
            registered_metrics=tuple(registered_metrics()),
            references=tuple(references),
            block=self._block,
            stream_tokens=setup.source.stream.tokens_served,
            skipped_batches=self._batches.skipped,
            driver=None if checkpoint is None else checkpoint.state["driver"],
            last_block=self._journal.last_after(self._block),
            steps={number: replicates[0][0]["step"] for number, replicates in saved.items()},
            damaged=(*damaged, *self._journal.damaged()),
            costs=self._watch.taken(),
        )

    def _go_back(self, checkpoint: Checkpoint, saved: Mapping[int, list[SavedSlot]], first_block: int) -> None:
        """Take over a checkpoint; one of another stream leaves this one at its start."""
        self._block = self._saved_before = checkpoint.block
        self._batches.skipped = checkpoint.state["skipped_batches"]
        if checkpoint.state["stream_label"] == self._label:
            self._setup.source.stream.load_state(checkpoint.state["stream"])
        else:
            self._block = max(self._block, first_block)
        self._restored = dict(saved)
        for replicates in list(self._restored.values()):
            place = Place(**replicates[0][0]["place"])
            if (place.slot + 1) * self._replicates <= self._setup.n_slots:
                self._place(place)
            # Else the cohort has shrunk: the trial waits until the driver finds it another slot.

    # ---------------------------------------------------------------- training

    def block(self, request: BlockRequest, while_training: Callable[[int], None] = lambda steps: None) -> BlockReport:
        """Carry out commands, train a block and measure.

        Args:
            request: What to do. The one answered last is answered with the same report. A later one than the next comes where
                this worker was opened in the place of one that is lost: it first repeats what lies between.
            while_training: Called before each step with the number of those that are done.

        Raises:
            OutOfMemory: The device or the host has no memory left.
            UserError: The data is of no use, or an SAE's starting weights are not.
        """
        if self._report is not None and request.number == self._report.number:
            return self._report
        if request.number <= self._block:
            raise ValueError(f"block {request.number} is asked for after block {self._block}")
        with translate_out_of_memory():
            for earlier in self._journal.between(self._block + 1, request.number - 1):
                self._run(earlier, while_training)
            self._journal.add(request)
            return self._run(request, while_training)

    def _run(self, request: BlockRequest, while_training: Callable[[int], None]) -> BlockReport:
        self._carry_out(request.commands)
        if request.save is not None:
            with self._watch.spending("saving"):
                self._checkpoint(request.save)
        self._report = self._train(request, while_training)
        self._block = request.number
        return self._report

    def _train(self, request: BlockRequest, while_training: Callable[[int], None]) -> BlockReport:
        started, cohort, stream = time.monotonic(), self._setup.cohort, self._setup.source.stream
        watch = self._watch
        cohort.begin_block()
        for step in range(request.steps):
            if all(slot.is_done for _, slot in cohort.occupied()):
                break
            while_training(step)
            with watch.spending("language_model"):
                batch = self._batches.next_batch()
            with watch.spending("training"):
                cohort.train_step(batch)
            with watch.spending("saving"):
                self._snapshots.take(self._trials)
        trials = report_trials(
            self._setup,
            self._slots_by_trial(),
            self._trials,
            measure=request.measure,
            metrics=request.metrics,
            required=request.required,
            watch=watch,
        )
        return BlockReport(
            number=request.number,
            trials=trials,
            stream_tokens=stream.tokens_served,
            epoch=stream.epoch,
            seconds=time.monotonic() - started,
            skipped_batches=self._batches.skipped,
            unreadable_rows=stream.unreadable_rows,
            events=self._new_events(),
            notes=tuple(Notice(level="info", message=note) for note in self._setup.evaluator.new_notes()),
            saved=self._new_saved(),
            wants_checkpoint=self._writer.is_due(lambda: self._to_save()[1]),
            costs=watch.taken(),
        )

    def _new_events(self) -> tuple[Notice | SnapshotTaken, ...]:
        found = tuple(self._events)
        self._events.clear()
        return found

    def _slots_by_trial(self) -> dict[int, list[Slot]]:
        """Return the replicates of each trial in the cohort, by trial number; they train side by side."""
        found: dict[int, list[Slot]] = {}
        for _, slot in self._setup.cohort.occupied():
            found.setdefault(slot.trial, []).append(slot)
        return found

    # ---------------------------------------------------------------- commands

    def _carry_out(self, commands: Commands) -> None:
        for number in commands.remove:
            self._remove(number)
        for place in commands.place:
            self._place(place)

    def _remove(self, number: int) -> None:
        self._restored.pop(number, None)  # of a trial that ends while it waits for a slot
        self._trials.pop(number, None)
        self._placed.pop(number, None)
        for index, slot in list(self._setup.cohort.occupied()):
            if slot.trial == number:
                self._setup.cohort.remove(index)

    def _place(self, place: Place) -> None:
        """Put a trial in its slot; one that is there stays as it is, so that commands may be repeated."""
        before = self._placed.get(place.number)
        if before is not None and before.slot == place.slot:
            return
        setup = self._setup
        trial = settings_for(setup.experiment, setup.objective, setup.d_in, place.number, dict(place.params))
        restored = self._restored.pop(place.number, None)
        if restored is None and place.source is not None:
            restored = self._of_another(place.number, place.source)
        for replicate in range(self._replicates):
            slot = Slot(
                trial=place.number,
                run=trial.run,
                joined_at_tokens=setup.source.stream.tokens_served,
                init_seed=derive(setup.base.seed, "init", replicate),
                device=setup.device,
                adam_moments=setup.experiment.spec.cohort.adam_moments,
                control=trial.control,
            )
            if restored is not None:
                meta, tensors = restored[replicate]
                slot.load(tensors, meta)
                slot.joined_at_tokens = meta["joined_at_tokens"]
            setup.cohort.place(place.slot * self._replicates + replicate, slot)
        self._trials[place.number], self._placed[place.number] = trial, place

    def _of_another(self, number: int, folder: str) -> list[SavedSlot] | None:
        """Return a trial as the last checkpoint of another worker holds it; it begins again where none does."""
        checkpoint, _ = CheckpointStore(self._setup.directory.of_worker(folder).checkpoints).load_latest()
        found = None if checkpoint is None else saved_slots(checkpoint).get(number)
        if found is None:
            message = f"trial {number} begins again: no checkpoint of the worker that trained it is whole"
            self._events.append(Notice(level="warning", message=message))
        return found

    # ---------------------------------------------------------------- checkpoints

    def save(self, request: SaveRequest) -> SaveReply:
        """Carry out commands and write a checkpoint; return when everything is on disk."""
        with translate_out_of_memory():
            self._carry_out(request.commands)
            self._checkpoint(request.driver)
            self._writer.wait()
        return SaveReply(saved=self._new_saved())

    def _to_save(self) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
        return slots_to_save(self._slots_by_trial(), self._restored, self._placed)

    def _checkpoint(self, driver: Mapping[str, Any]) -> None:
        """Write everything needed to resume from this block boundary; it may reach the disk later."""
        stream = self._setup.source.stream
        metas, tensors = self._to_save()
        self._journal.forget(self._saved_before + 1)
        self._saved_before = self._block
        self._writer.save(
            self._block,
            stream.tokens_served,
            {
                "stream_tokens": stream.tokens_served,
                "stream_label": self._label,
                "stream": stream.state(),
                "slots": metas,
                "skipped_batches": self._batches.skipped,
                "driver": driver,
            },
            tensors,
        )

    def _new_saved(self) -> tuple[Saved, ...]:
        return tuple(
            Saved(block=one.block, stream_tokens=one.stream_tokens, seconds=one.seconds)
            for one in self._writer.finished()
        )

    # ---------------------------------------------------------------- the end

    def test(self, trial: Finished) -> Tested:
        """Measure a finished trial on the `test` part."""
        with translate_out_of_memory():
            return self._finals.test(trial)

    def compare(self, trials: Sequence[Finished], metric: str) -> None:
        """Measure finished trials on the same contexts of `select`, for `stderr`."""
        with translate_out_of_memory():
            self._finals.compare(trials, metric)

    def stderr(self, weights: Mapping[int, float]) -> float | None:
        """Return the standard error over contexts of a weighted sum of compared trials' metric; None where not known."""
        return self._finals.stderr(weights)

    def export(self, export: Export) -> None:
        """Copy a finished trial's SAE to a folder."""
        self._finals.export(export)

    def close(self) -> None:
        """Give the stream's memory back; a checkpoint that is still being written is left: the one before it stays newest."""
        try:
            self._writer.close(cancel=True)
        finally:
            self._setup.source.close()
