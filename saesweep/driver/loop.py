"""The run loop: a worker trains a block, the scheduler decides on its report, and the decisions are the next commands.

A block is: train, measure what is due, report, judge, tell, ask, then (when it is time) checkpoint. Everything after a
checkpoint is repeated identically by a resumed run; the study verifies what it already holds.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from saesweep.driver.commands import Todo, told
from saesweep.driver.grouping import answer
from saesweep.driver.matched import matched_entries
from saesweep.driver.progress import Pace, Progress
from saesweep.driver.ranking import best_so_far
from saesweep.driver.reports import Reports
from saesweep.driver.search import Search
from saesweep.driver.session import Session
from saesweep.driver.standings import Leaderboard
from saesweep.driver.stop import StopFlag
from saesweep.driver.stopping import stop_reason
from saesweep.driver.told import expected_end, result_to_tell
from saesweep.driver.trial_log import TrialLog
from saesweep.driver.trials import Trial, new_trial, row_of, save_trial_record
from saesweep.engines.protocol import Engine, Worker
from saesweep.engines.records import BlockRequest, Saved, SaveRequest
from saesweep.events import BlockDone as BlockDoneEvent
from saesweep.events import (
    CheckpointSaved,
    EventBus,
    MatchedEntry,
    Note,
    ReferenceRow,
    Row,
    TrialEnded,
    TrialStarted,
)
from saesweep.experiment import are_comparable
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

SHOWN_ROWS = 100
"""Trials that have ended in the events of a block: more than a screen shows."""


class SweepLoop:
    """One run of a sweep, from its start or its last checkpoint to its end or an interruption.

    Args:
        session: What was opened and decided.
        search: The study and the scheduler's rules.
        engine: Has the reports of the worker.
        worker: Trains and measures.
        bus: Who wants to know.
        stop: Set by Ctrl-C.
    """

    def __init__(
        self, session: Session, search: Search, engine: Engine, worker: Worker, bus: EventBus, stop: StopFlag
    ) -> None:
        self._session = session
        self._search = search
        self._engine = engine
        self._worker = worker
        self._bus = bus
        self._stop = stop
        self._state = State.new(search.policy)
        self._todo = Todo()
        self._log = TrialLog(session.directory, bus)
        self.trials: dict[int, Trial] = {}
        self._live: dict[int, Trial] = {}
        """Those that have not ended: all that changes in a block."""
        self._asked: Counter[str] = Counter()
        """How many trials each stream has had."""
        self._ended_tokens = 0
        self._leaderboard = Leaderboard(session.objective, session.streams)
        self._reports = Reports(search, session.objective, self._log, self.trials)
        self.stop_reason: str | None = None
        self.block = 0
        self.stream_tokens = session.opened.stream_tokens
        self.epoch = 0
        self.skipped_batches = session.opened.skipped_batches
        """Batches left out because of NaN or infinities, over all starts of the run."""
        self.unreadable_rows = 0
        self.trained_tokens = 0
        self._ended: list[int] = []
        self._seconds_before = 0.0
        self._started = time.monotonic()
        self._progress = Progress()
        self._board_pace = Pace()
        self._references: tuple[ReferenceRow, ...] = ()
        self._matched: tuple[MatchedEntry, ...] = ()
        self._said_stop = False

    # ---------------------------------------------------------------- start

    def restore(self) -> int | None:
        """Go back to the checkpoint that the worker has gone back to.

        Returns:
            The stream position gone back to, None where there is no checkpoint.
        """
        opened = self._session.opened
        self._log.go_back({} if opened.driver is None else self._load(opened.driver))
        return None if opened.driver is None else opened.stream_tokens

    def _load(self, saved: Mapping[str, Any]) -> dict[int, int]:
        self.block = self._session.opened.block
        # The policy is rebuilt from the file: more trials may be wanted now, or memory may hold fewer at once.
        policy = self._search.policy
        self._state = replace(State.from_json(saved["scheduler"]), policy=policy, n_slots=policy.n_slots)
        self._ended = list(saved["ended"])
        self._seconds_before = saved["training_seconds"]
        known, behind = catch_up(self._search.study, [self._kept(data) for data in saved["trials"]])
        if behind:
            message = f"study.db lacked what the checkpoint holds of {behind} trials; it was made again from there"
            self._bus.emit(Note(level="warning", message=message))
        for data in saved["trials"]:
            trial = self._trial(data["number"], known[data["number"]].params, data.get("retry_of"))
            trial.load(data)
            if trial.slot is not None and trial.slot >= policy.n_slots:
                # The cohort has shrunk: as in the scheduler, the trial waits for a slot, and may be pruned before its turn.
                trial.status, trial.slot = "waiting", None
        self._live = {number: trial for number, trial in self.trials.items() if trial.is_live}
        ended = [trial for trial in self.trials.values() if not trial.is_live]
        self._ended_tokens = sum(trial.tokens for trial in ended)
        self._leaderboard = Leaderboard(self._session.objective, self._session.streams, map(row_of, ended))
        return {number: trial.tokens for number, trial in self.trials.items()}

    def _kept(self, data: Mapping[str, Any]) -> KeptTrial:
        """Return what a checkpoint holds of a trial, as the study would."""
        has_ended = data["status"] not in ("training", "waiting")
        result = result_to_tell(data, self._session.objective) if has_ended else {"state": None, "values": None}
        return KeptTrial(number=data["number"], params=data["params"], rungs=dict(data["rungs"]), **result)

    # ---------------------------------------------------------------- the loop

    def run(self) -> bool:
        """Train until nothing is left to do; return False where someone asked to stop before that.

        The last checkpoint is on disk when it returns.
        """
        with self._stop.finishing_blocks():
            self._decide(Opened())
            wants_checkpoint = False
            while self.stop_reason is None and not self._stop.requested:
                wants_checkpoint = self._block(save=wants_checkpoint)
            self._session.directory.check_is_held()
            request = SaveRequest(number=self.block + 1, commands=self._todo.taken(), driver=self._saved())
            self._announce_checkpoints(self._worker.save(request).saved)
        return self.stop_reason is not None

    def _block(self, *, save: bool) -> bool:
        """Let the worker train a block, after a checkpoint if it is time for one, and decide; return whether it is now."""
        self._session.directory.check_is_held()
        tokens_before = self._sae_tokens()
        self._progress.begin_block(tokens_before, self._expected_sae_tokens())
        self._worker.start(
            BlockRequest(
                number=self.block + 1,
                steps=self._session.blocks.block_steps,
                commands=self._todo.taken(),
                measure=self._reports.due(self._state, self._session.blocks.block_tokens),
                metrics=self._search.policy.aim.metrics,
                required=tuple(goal.metric for goal in self._session.objective.goals),
                save=self._saved() if save else None,
            )
        )
        _, report = self._engine.next_report([self._worker], self._while_waiting)
        arrived = time.monotonic()
        self.block, self.stream_tokens, self.epoch = report.number, report.stream_tokens, report.epoch
        self.skipped_batches, self.unreadable_rows = report.skipped_batches, report.unreadable_rows
        self._announce_checkpoints(report.saved)
        for event in report.events:
            self._bus.emit(told(event))
        self._decide(self._reports.record(self._state, report))
        for note in report.notes:
            self._bus.emit(told(note))
        trained = self._sae_tokens() - tokens_before
        self.trained_tokens += trained
        losses = {number: one.loss for number, one in report.trials.items()}
        self._announce(report.seconds + time.monotonic() - arrived, trained, losses)
        return report.wants_checkpoint

    def _while_waiting(self, steps: int | None) -> None:
        """Say how far the block is, and that a stop was asked for.

        Args:
            steps: Of the block that are trained; None where that is not known.
        """
        if steps is not None and self._progress.is_due():
            run = self._session.experiment.base_run()
            tokens = {
                trial.number: min(trial.tokens + steps * run.train_batch_size_tokens, trial.total_tokens)
                for trial in self.trials.values()
                if trial.status == "training"
            }
            more = sum(now - self.trials[number].tokens for number, now in tokens.items()) * self._session.replicates
            stream_tokens = self.stream_tokens + steps * run.train_batch_size_tokens
            done = self._sae_tokens() + more
            self._bus.emit(self._progress.within(tokens, done, stream_tokens=stream_tokens, epoch=self.epoch))
        if self._stop.requested and not self._said_stop:
            self._said_stop = True
            self._bus.emit(Note(level="info", message="finishing this block, then saving; Ctrl-C again stops now"))

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
                    self._session.experiment.spec.search, self._session.objective, ended, self._training_seconds()
                )
                if reason is not None:
                    # Not final: what still trains stays as it is, and continues where the limit is raised.
                    self._decide(StopRequested(reason=reason))
                    return
            self._carry_out(action, failed)

    def _carry_out(self, action: Action, failed: dict[int, str]) -> None:
        if isinstance(action, Ask):
            if action.retry_of is not None:
                params = self._search.study.repeat(action.number, self.trials[action.retry_of].params)
            else:
                position = self._asked[self._session.label]
                params = self._search.ask(
                    action.number, action.stratum, position, self._expected_ends(), self._session.cannot_keep_limits
                )
            trial = self._trial(action.number, params, action.retry_of)
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
        found = {n: expected_end(e, self._session.objective) for n, e in expected_ends(self._state).items()}
        return {number: end for number, end in found.items() if end is not None}

    def _trial(self, number: int, params: dict[str, Any], retry_of: int | None = None) -> Trial:
        label = self._session.stream_of(params).label
        trial = new_trial(
            number,
            params,
            self._session.resolve(params),
            objective=self._session.objective,
            target_l0=self._session.experiment.target_l0(params),
            is_baseline=retry_of is None and self._search.is_baseline(self._asked[label]),
            replicates=self._session.replicates,
            stream=label,
        )
        self.trials[number] = self._live[number] = trial
        trial.retry_of = retry_of
        self._asked[label] += retry_of is None  # what repeats a failed trial comes on top
        return trial

    def _place(self, trial: Trial, index: int) -> None:
        self._todo.place(trial.number, index, trial.params)
        if trial.joined_at_tokens is None:  # else the worker has its state, and where it joined
            trial.joined_at_tokens = self.stream_tokens
        trial.status, trial.slot = "training", index
        self._bus.emit(
            TrialStarted(
                number=trial.number,
                slot=index,
                architecture=trial.run.sae.architecture,
                sparsity=trial.sparsity,
                params=trial.params,
                joined_at_tokens=trial.joined_at_tokens,
            )
        )

    def _end(self, trial: Trial, status: Any, reason: str) -> None:
        self._todo.remove(trial.number)
        trial.status, trial.slot, trial.reason = status, None, reason
        if status != "failed":
            self._ended.append(trial.number)
        del self._live[trial.number]
        self._ended_tokens += trial.tokens
        self._leaderboard.add(row_of(trial))
        self._search.study.tell(trial.number, **result_to_tell(trial.state(), self._session.objective))
        save_trial_record(self._session.directory, trial)
        self._bus.emit(TrialEnded(number=trial.number, status=status, tokens=trial.tokens, reason=reason))

    # ---------------------------------------------------------------- what others see

    def rows(self) -> tuple[Row, ...]:
        """Return the leaderboard, best first."""
        return self._leaderboard.rows(self._live_rows())

    def _live_rows(self) -> list[Row]:
        return [row_of(trial) for trial in self._live.values()]

    def matched(self, rows: Sequence[Row]) -> tuple[MatchedEntry, ...]:
        """Return the best at each L0 so far, its ties judged by seeds alone; nothing without matched L0."""
        return () if self._session.objective.matched is None else matched_entries(rows, self._session.objective)

    def _training_seconds(self) -> float:
        return self._seconds_before + time.monotonic() - self._started

    def _sae_tokens(self) -> int:
        live = sum(trial.tokens for trial in self._live.values())
        return (self._ended_tokens + live) * self._session.replicates

    def _expected_sae_tokens(self) -> int:
        """Return what `_sae_tokens` will be at the end if no further trial is pruned."""
        to_come = self._session.experiment.n_trials - sum(self._asked.values()) + len(self._live)
        return self._session.replicates * (self._ended_tokens + to_come * self._session.blocks.total_tokens)

    def _announce(self, seconds: float, trained_tokens: int, losses: dict[int, float]) -> None:
        done, expected = self._sae_tokens(), self._expected_sae_tokens()
        if self._board_pace.is_due():
            with self._board_pace.taking():
                self._write_board()
        live = self._live_rows()
        rows = self._leaderboard.rows(live, SHOWN_ROWS)
        rate, eta_seconds = self._progress.update(seconds, trained_tokens, expected - done)
        self._bus.emit(
            BlockDoneEvent(
                block=self.block,
                stream_tokens=self.stream_tokens,
                sae_tokens=done,
                expected_sae_tokens=expected,
                seconds=seconds,
                sae_tokens_per_second=rate,
                eta_seconds=eta_seconds,
                losses=losses,
                rows=rows,
                states=self._leaderboard.states(live),
                best=best_so_far(rows, self._session.objective) if are_comparable(self._session.streams) else None,
                epoch=self.epoch,
                references=self._references,
                matched=self._matched,
            )
        )

    def _write_board(self) -> None:
        """Write the whole leaderboard, and what takes all its rows to say."""
        rows, board = self.rows(), self._session.board
        self._references, self._matched = board.references(rows), self.matched(rows)
        self._session.directory.check_is_held()  # writing would make a new folder in its place
        board.write(rows, status="running", stream_tokens=self.stream_tokens, matched=self._matched)

    def _saved(self) -> dict[str, Any]:
        """Return the driver's part of a checkpoint: what it knows once the commands that wait are carried out."""
        return {
            "stream": self._session.label,
            "scheduler": self._state.to_json(),
            "trials": [trial.state() for trial in self.trials.values()],
            "ended": self._ended,
            "training_seconds": self._training_seconds(),
        }

    def _announce_checkpoints(self, saved: Sequence[Saved]) -> None:
        for one in saved:
            self._bus.emit(CheckpointSaved(block=one.block, stream_tokens=one.stream_tokens, seconds=one.seconds))
