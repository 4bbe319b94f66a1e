"""The run loop: trains blocks, measures, lets the scheduler decide, and carries its decisions out.

A block is: train, measure what is due, report, judge, tell, ask, then (when it is time) checkpoint. Everything after a
checkpoint is repeated identically by a resumed run; the study verifies what it already holds.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from saesweep.cohort import Slot
from saesweep.events import BlockDone as BlockDoneEvent
from saesweep.events import (
    CheckpointSaved,
    EventBus,
    MatchedEntry,
    Note,
    Row,
    TrialEnded,
    TrialStarted,
)
from saesweep.experiment import are_comparable
from saesweep.runs import Checkpoint, CheckpointStore, CheckpointWriter
from saesweep.scheduler import (
    Action,
    Ask,
    BlockDone,
    Complete,
    Opened,
    Place,
    Prune,
    State,
    Stop,
    StopRequested,
    decide,
    expected_ends,
)
from saesweep.study import ExpectedEnd, KeptTrial, catch_up
from saesweep.sweep.artifacts import save_trial_record
from saesweep.sweep.batches import FiniteBatches
from saesweep.sweep.by_stream import ranked_by_stream
from saesweep.sweep.grouping import answer
from saesweep.sweep.matched import matched_entries
from saesweep.sweep.measure import mean_and_spread
from saesweep.sweep.progress import Board, Progress
from saesweep.sweep.ranking import best_so_far
from saesweep.sweep.reports import Reports
from saesweep.sweep.saved import SavedSlot, saved_slots, slots_to_save
from saesweep.sweep.search import Search
from saesweep.sweep.seeds import derive
from saesweep.sweep.setup import Setup
from saesweep.sweep.snapshots import Snapshots
from saesweep.sweep.stop import StopFlag
from saesweep.sweep.stopping import stop_reason
from saesweep.sweep.told import expected_end, result_to_tell
from saesweep.sweep.trial_log import TrialLog
from saesweep.sweep.trials import Trial, new_trial, row_of


class SweepLoop:
    """One run of a sweep, from its start or its last checkpoint to its end or an interruption.

    Args:
        setup: What was opened and decided.
        search: The study and the scheduler's rules.
        bus: Who wants to know.
        stop: Set by Ctrl-C.
    """

    def __init__(self, setup: Setup, search: Search, bus: EventBus, stop: StopFlag) -> None:
        self._setup = setup
        self._search = search
        self._bus = bus
        self._stop = stop
        self._store = CheckpointStore(setup.directory.checkpoints)
        self._writer = CheckpointWriter(
            self._store,
            in_background=setup.background_checkpoints,
            min_seconds=setup.experiment.spec.cohort.checkpoint_seconds,
        )
        self._state = State.new(search.policy)
        self._cohort = setup.cohort
        self._stream = setup.source.stream
        self._replicates = setup.experiment.spec.search.replicates
        self._batches = FiniteBatches(
            self._stream,
            most_skipped=setup.experiment.spec.cohort.max_skipped_batches,
            say=lambda message: bus.emit(Note(level="warning", message=message)),
        )
        self._log = TrialLog(setup.directory, bus)
        self._snapshots = Snapshots(setup, bus, self._replicates)
        self._segment_index = None if setup.segment is None else setup.segment.index
        self.trials: dict[int, Trial] = {}
        self._reports = Reports(setup, search, self._log, self.trials, replicates=self._replicates)
        self.stop_reason: str | None = None
        self.block = 0
        self.trained_tokens = 0
        self._restored: dict[int, list[SavedSlot]] = {}
        self._ended: list[int] = []
        self._seconds_before = 0.0
        self._started = time.monotonic()
        self._progress = Progress()
        self._board = Board.of(setup)
        self._said_stop = False

    # ---------------------------------------------------------------- start

    def restore(self) -> tuple[int | None, list[str]]:
        """Go back to the newest whole checkpoint.

        Returns:
            The stream position gone back to, None where there is no checkpoint; and a message per damaged one.
        """
        checkpoint, damaged = self._store.load_latest()
        self._log.go_back({} if checkpoint is None else self._load(checkpoint))
        return (None if checkpoint is None else self._stream.tokens_served), damaged

    def _load(self, checkpoint: Checkpoint) -> dict[int, int]:
        state = checkpoint.state
        self.block = checkpoint.block
        # The policy is rebuilt from the file: more trials may be wanted now, or memory may hold fewer at once.
        policy = self._search.policy
        self._state = replace(State.from_json(state["scheduler"]), policy=policy, n_slots=policy.n_slots)
        if state.get("segment") == self._segment_index:
            self._stream.load_state(state["stream"])
        self._batches.skipped = state["skipped_batches"]
        self._ended = list(state["ended"])
        self._seconds_before = state["training_seconds"]
        known, behind = catch_up(self._search.study, [self._kept(data) for data in state["trials"]])
        if behind:
            message = f"study.db lacked what the checkpoint holds of {behind} trials; it was made again from there"
            self._bus.emit(Note(level="warning", message=message))
        for data in state["trials"]:
            trial = self._trial(data["number"], known[data["number"]].params)
            trial.load(data)
            if trial.slot is not None and trial.slot >= policy.n_slots:
                # The cohort has shrunk: as in the scheduler, the trial waits for a slot, and may be pruned before its turn.
                trial.status, trial.slot = "waiting", None
        self._restored = saved_slots(checkpoint)  # none at the end of an earlier segment
        return {number: trial.tokens for number, trial in self.trials.items()}

    def _kept(self, data: Mapping[str, Any]) -> KeptTrial:
        """Return what a checkpoint holds of a trial, as the study would."""
        has_ended = data["status"] not in ("training", "waiting")
        result = result_to_tell(data, self._setup.objective) if has_ended else {"state": None, "values": None}
        return KeptTrial(number=data["number"], params=data["params"], rungs=dict(data["rungs"]), **result)

    # ---------------------------------------------------------------- the loop

    def run(self) -> bool:
        """Train until nothing is left to do; return False where someone asked to stop before that.

        The last checkpoint is on disk when it returns.
        """
        is_over = False
        try:
            with self._stop.finishing_blocks():
                self._decide(Opened())
                while self.stop_reason is None and not self._stop.requested:
                    self._block()
                    if self._writer.is_due(lambda: self._to_save()[1]):
                        self.checkpoint()
                    self._announce_checkpoints()
                self.checkpoint()
                self._writer.wait()
                self._announce_checkpoints()
            is_over = True
        finally:
            self._writer.close(cancel=not is_over)
        return self.stop_reason is not None

    def _block(self) -> None:
        self._setup.directory.check_is_held()
        started = time.monotonic()
        tokens_before = self._sae_tokens()
        self._progress.begin_block(tokens_before, self._expected_sae_tokens())
        self._cohort.begin_block()
        for _ in range(self._setup.blocks.block_steps):
            if all(slot.is_done for _, slot in self._cohort.occupied()):
                break
            if self._stop.requested and not self._said_stop:
                self._said_stop = True
                self._bus.emit(Note(level="info", message="finishing this block, then saving; Ctrl-C again stops now"))
            self._cohort.train_step(self._batches.next_batch())
            self._snapshots.take(self.trials)
            if self._progress.is_due():
                self._tell_progress()
        self.block += 1
        slots = self._slots_by_trial()
        losses = {number: mean_and_spread([s.mean_losses() for s in mine])[0] for number, mine in slots.items()}
        for number, mine in slots.items():
            self.trials[number].tokens = mine[0].tokens
        self._decide(self._reports.of_block(self._state, self._cohort, slots, losses))
        for message in self._setup.evaluator.new_notes():
            self._bus.emit(Note(level="info", message=message))
        trained = self._sae_tokens() - tokens_before
        self.trained_tokens += trained
        self._announce(time.monotonic() - started, trained, losses)

    def _slots_by_trial(self) -> dict[int, list[Slot]]:
        """Return the replicates of each trial in the cohort, by trial number; they train side by side."""
        found: dict[int, list[Slot]] = {}
        for _, slot in self._cohort.occupied():
            found.setdefault(slot.trial, []).append(slot)
        return found

    # ---------------------------------------------------------------- decisions

    def _decide(self, event: Any) -> None:
        self._state, actions = decide(self._state, event)
        failed = dict(event.failed) if isinstance(event, BlockDone) else {}
        for action in actions:
            if isinstance(action, (Place, Ask)):
                if self.stop_reason is not None:  # stopped while an earlier ask was answered
                    return
                ended = [self.trials[number] for number in self._ended]
                reason = stop_reason(
                    self._setup.experiment.spec.search, self._setup.objective, ended, self._training_seconds()
                )
                if reason is not None:
                    # Not final: what still trains stays as it is, and goes on where the limit is raised.
                    self._decide(StopRequested(reason=reason))
                    return
            self._carry_out(action, failed)

    def _carry_out(self, action: Action, failed: dict[int, str]) -> None:
        if isinstance(action, Ask):
            params = self._search.ask(action.number, action.stratum, self._expected_ends())
            trial = self._trial(action.number, params)
            self._decide(answer(action, trial, self._search.policy))
        elif isinstance(action, Place):
            self._place(self.trials[action.number], action.slot)
        elif isinstance(action, Prune):
            self.trials[action.number].expected = dict(action.expected)
            self._end(self.trials[action.number], "failed" if action.number in failed else "pruned", action.reason)
        elif isinstance(action, Complete):
            self._end(self.trials[action.number], "complete", "")
        elif isinstance(action, Stop):
            self.stop_reason = action.reason

    def _expected_ends(self) -> dict[int, ExpectedEnd]:
        """Return what the training trials are expected to be worth, for the sampler."""
        found = {n: expected_end(e, self._setup.objective) for n, e in expected_ends(self._state).items()}
        return {number: end for number, end in found.items() if end is not None}

    def _trial(self, number: int, params: dict[str, Any]) -> Trial:
        run, stream = self._setup.resolve(params), self._setup.stream_of(params).label
        trial = new_trial(
            number,
            params,
            run,
            objective=self._setup.objective,
            target_l0=self._setup.experiment.target_l0(params),
            is_baseline=self._search.is_baseline(number),
            replicates=self._replicates,
            stream=stream,
        )
        self.trials[number] = trial
        return trial

    def _place(self, trial: Trial, index: int) -> None:
        joined = self._stream.tokens_served
        restored = self._restored.pop(trial.number, None)
        for replicate in range(self._replicates):
            slot = Slot(
                trial=trial.number,
                run=trial.run,
                joined_at_tokens=joined,
                init_seed=derive(self._setup.base.seed, "init", replicate),
                device=self._setup.device,
                adam_moments=self._setup.experiment.spec.cohort.adam_moments,
                control=trial.control,
            )
            if restored is not None:
                meta, tensors = restored[replicate]
                slot.load(tensors, meta)
                slot.joined_at_tokens = joined = meta["joined_at_tokens"]
            self._cohort.place(index * self._replicates + replicate, slot)
        trial.status, trial.slot, trial.joined_at_tokens = "training", index, joined
        self._bus.emit(
            TrialStarted(
                number=trial.number,
                slot=index,
                architecture=trial.run.sae.architecture,
                sparsity=trial.sparsity,
                params=trial.params,
                joined_at_tokens=joined,
            )
        )

    def _end(self, trial: Trial, status: Any, reason: str) -> None:
        if trial.slot is not None:
            for replicate in range(self._replicates):
                self._cohort.remove(trial.slot * self._replicates + replicate)
        self._restored.pop(trial.number, None)  # of a trial that ends while it waits for a slot
        trial.status, trial.slot, trial.reason = status, None, reason
        if status != "failed":
            self._ended.append(trial.number)
        self._search.study.tell(trial.number, **result_to_tell(trial.state(), self._setup.objective))
        save_trial_record(self._setup.directory, trial)
        self._bus.emit(TrialEnded(number=trial.number, status=status, tokens=trial.tokens, reason=reason))

    # ---------------------------------------------------------------- what others see

    def rows(self) -> tuple[Row, ...]:
        """Return the leaderboard, best first."""
        rows = [row_of(trial) for trial in self.trials.values()]
        return ranked_by_stream(rows, self._setup.objective, self._setup.streams)

    def matched(self, rows: Sequence[Row]) -> tuple[MatchedEntry, ...]:
        """Return the best at each L0 so far, its ties judged by seeds alone; nothing without matched L0."""
        return () if self._setup.objective.matched is None else matched_entries(rows, self._setup.objective)

    @property
    def skipped_batches(self) -> int:
        """Batches left out because of NaN or infinities, over all starts of the run."""
        return self._batches.skipped

    def _training_seconds(self) -> float:
        return self._seconds_before + time.monotonic() - self._started

    def _sae_tokens(self) -> int:
        return sum(trial.tokens for trial in self.trials.values()) * self._replicates

    def _expected_sae_tokens(self) -> int:
        """Return what `_sae_tokens` will be at the end if no further trial is pruned."""
        total = self._setup.blocks.total_tokens
        unasked = self._search.policy.n_trials - len(self.trials)
        if self._setup.segment is not None:  # the streams to come
            unasked = max(unasked, self._setup.experiment.n_trials - len(self.trials))
        running = sum(total if t.status in ("training", "waiting") else t.tokens for t in self.trials.values())
        return self._replicates * (unasked * total + running)

    def _tell_progress(self) -> None:
        tokens = {number: mine[0].tokens for number, mine in self._slots_by_trial().items()}
        more = sum(now - self.trials[number].tokens for number, now in tokens.items()) * self._replicates
        at = {"stream_tokens": self._stream.tokens_served, "epoch": self._stream.epoch}
        self._bus.emit(self._progress.within(tokens, self._sae_tokens() + more, **at))

    def _announce(self, seconds: float, trained_tokens: int, losses: dict[int, dict[str, float]]) -> None:
        rows = self.rows()
        done, expected = self._sae_tokens(), self._expected_sae_tokens()
        rate, eta_seconds = self._progress.update(seconds, trained_tokens, expected - done)
        self._bus.emit(
            BlockDoneEvent(
                block=self.block,
                stream_tokens=self._stream.tokens_served,
                sae_tokens=done,
                expected_sae_tokens=expected,
                seconds=seconds,
                sae_tokens_per_second=rate,
                eta_seconds=eta_seconds,
                losses={number: terms.get("overall_loss", float("nan")) for number, terms in losses.items()},
                rows=rows,
                best=best_so_far(rows, self._setup.objective) if are_comparable(self._setup.streams) else None,
                epoch=self._stream.epoch,
                references=self._board.references(rows),
                matched=self.matched(rows),
            )
        )
        self._setup.directory.check_is_held()  # writing would make a new folder in its place
        self._board.write(rows, status="running", stream_tokens=self._stream.tokens_served, matched=self.matched(rows))

    def _to_save(self) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
        return slots_to_save(self._slots_by_trial(), self._restored)

    def checkpoint(self) -> None:
        """Write everything needed to resume from this block boundary; it may reach the disk later."""
        self._setup.directory.check_is_held()
        metas, tensors = self._to_save()
        self._writer.save(
            self.block,
            self._stream.tokens_served,
            {
                "stream_tokens": self._stream.tokens_served,
                "segment": self._segment_index,
                "first_trial": 0 if self._setup.segment is None else self._setup.segment.first_trial,
                "scheduler": self._state.to_json(),
                "stream": self._stream.state(),
                "trials": [trial.state() for trial in self.trials.values()],
                "slots": metas,
                "skipped_batches": self._batches.skipped,
                "ended": self._ended,
                "training_seconds": self._training_seconds(),
            },
            tensors,
        )

    def _announce_checkpoints(self) -> None:
        for one in self._writer.finished():
            self._bus.emit(CheckpointSaved(block=one.block, stream_tokens=one.stream_tokens, seconds=one.seconds))
