"""The run loop: workers train blocks, the scheduler decides on each report, and the decisions are the next commands.

A block is: train, measure what is due, report, judge, tell, ask, then (when it is time) checkpoint. With one worker,
everything after a checkpoint is repeated identically by a resumed run; the study verifies what it already holds. With
several, each report is noted before anything is decided on it, and a resumed run repeats the decisions in that order.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from saesweep.collection import paused_collection
from saesweep.driver.fleet import Fleet, Member, SlotsLine, event_of
from saesweep.driver.history import History, save_workers
from saesweep.driver.log import TrialLog
from saesweep.driver.patience import Patience
from saesweep.driver.progress import Pace
from saesweep.driver.publishing import Publisher
from saesweep.driver.replacing import Replacing
from saesweep.driver.reports import Reports
from saesweep.driver.roster import Roster
from saesweep.driver.search import Search
from saesweep.driver.session import Session
from saesweep.driver.stopping import StopFlag, stop_reason
from saesweep.driver.trial_results import expected_of, tell_arguments
from saesweep.driver.trials import Trial, answer, save_trial_record, started
from saesweep.engines.protocol import Engine, Worker, WorkerFault
from saesweep.engines.records import BlockReport
from saesweep.events import EventBus, Note, TrialEnded
from saesweep.scheduler import (
    Action,
    Ask,
    BlockDone,
    Complete,
    Failed,
    Opened,
    Place,
    Policy,
    PolicyChanged,
    Prune,
    State,
    Stop,
    StopRequested,
    decide,
    expected_ends,
)
from saesweep.status import EndedStatus


class SweepLoop:
    """One run of a sweep, from its start or its last checkpoint to its end or an interruption.

    Args:
        session: What was opened and decided.
        search: The study and the scheduler's rules.
        engine: Has the reports of the workers.
        fleet: The workers.
        bus: Who wants to know.
        stop: Set by Ctrl-C.
        history: Of a run with several workers, what the driver keeps; None with one.
    """

    def __init__(
        self,
        session: Session,
        search: Search,
        engine: Engine,
        fleet: Fleet,
        bus: EventBus,
        stop: StopFlag,
        history: History | None = None,
    ) -> None:
        self._session = session
        self._search = search
        self._engine = engine
        self.fleet = fleet
        self._bus = bus
        self._stop = stop
        self._history = history
        self._state = State.new(search.policy)
        self._log = TrialLog(session.directory, bus)
        self.roster = Roster(session, search)
        self.publisher = Publisher(session, self.roster, fleet, bus, has_rows=history is not None)
        self._reports = Reports(search, session.objective, self._log, self.roster.trials)
        self._replacing = Replacing(session, engine, fleet)
        self._patience = Patience(session.experiment.spec.search, session.objective, self.roster.ended_trials)
        self.stop_reason: str | None = None
        self.trained_tokens = 0
        self._seconds_before = 0.0
        self._started = time.monotonic()
        self._noted_seconds: float | None = None
        """Seconds of training when what is decided on was noted; None where nothing is noted."""
        self._snapshot_pace = Pace()
        self._said_stop = False
        self._new_policy: Policy | None = None
        """The rules of the file, while those of the checkpoint still hold."""

    @property
    def stream_tokens(self) -> int:
        """The furthest position of the stream."""
        return self.fleet.stream_tokens

    # ---------------------------------------------------------------- start

    def restore(self) -> int | None:
        """Go back to the driver's last checkpoint, repeat what several workers reported since, and return the stream position (None without one)."""
        saved = self._session.saved
        with paused_collection():
            self._log.go_back({} if saved is None else self._load(saved))
        if self._history is not None and saved is None:
            self._state = replace(self._state, workers=self._replacing.begin())
        elif self._history is not None:
            self._repeat(self._history)
        return None if saved is None else self.stream_tokens

    def _load(self, saved: Mapping[str, Any]) -> dict[int, int]:
        # The policy is rebuilt from the file: more trials may be wanted now, or memory may hold fewer at once.
        state, policy = State.from_json(saved["scheduler"]), self._search.policy
        self._patience.wanted = saved.get("wanted_trials") if saved["stream"] == self._session.label else None
        if self._history is None:
            # What the study holds beyond the checkpoint is repeated by the rules of that time: trials keep their numbers.
            is_known = policy.is_equivalent_to(self._patience.in_full(state.policy))
            if saved["stream"] == self._session.label and not is_known:
                self._new_policy, policy = policy, replace(state.policy, n_slots=policy.n_slots)
            else:
                policy = self._patience.like(policy, state.policy)
            self._state = replace(state, policy=policy, workers={0: policy.n_slots})
        else:  # so is the log
            self._state = state
        for data in saved.get("workers", ()):
            self.fleet.members[data["number"]] = Member.from_json(data)
        self._seconds_before = saved["training_seconds"]
        self.roster.load(saved, self._state, self._warn)
        return {number: trial.tokens for number, trial in self.roster.trials.items()}

    def _repeat(self, history: History) -> None:
        """Decide again on what has been reported since the snapshot; no listener is notified a second time."""
        with self._bus.muted():
            self._begin_blocks(is_repeated=True)
            for line in history.lines():
                self._seconds_before = line["seconds"]
                self._take(line)
                self._begin_blocks(is_repeated=True)
        self._state = replace(self._state, policy=self._patience.like(self._search.policy, self._state.policy))
        for member in self.fleet:
            member.put_back()

    # ---------------------------------------------------------------- the loop

    def run(self) -> bool:
        """Train until nothing is left to do; return False where someone asked to stop before that.

        The last checkpoint is on disk when it returns.
        """
        with self._stop.finishing_blocks():
            if self._history is not None:
                for line in self._replacing.met(self._state):
                    self._note(self._history.slots(line, self._training_seconds()))
                self._snapshot(self._history)
            if self.roster.has_caught_up():
                self._change_policy()
            self._decide(Opened())
            while self._begin_blocks():
                self._next_report()
            self._session.directory.check_is_held()
            self._save()
        return self.stop_reason is not None

    def _begin_blocks(self, *, is_repeated: bool = False) -> bool:
        """Let the workers that are between two blocks begin the next one; return whether anyone trains.

        Args:
            is_repeated: Their reports are known: only note what they were asked.
        """
        if self.stop_reason is None and (is_repeated or not self._stop.requested):
            for number in self._state.filling:
                member = self.fleet.get_or_add(number)
                if member.taken is None and (is_repeated or member.worker is not None):
                    self._begin_block(member, is_repeated=is_repeated)
        if is_repeated:
            return False
        return bool(self.fleet.running) or (self.stop_reason is None and not self._stop.requested)

    def _begin_block(self, member: Member, *, is_repeated: bool) -> None:
        if not self._state.training_on(member.number):
            return
        request = self._reports.request(self._state, member, self._session.blocks)
        if is_repeated or member.worker is None:
            return
        self._session.directory.check_is_held()
        self.publisher.begin_block()
        # A trial that comes from another worker's checkpoint is part of this one's from here on.
        if member.wants_checkpoint or any(place.source is not None for place in request.commands.place):
            request = replace(request, save=self._saved() if self._history is None else {})
        member.worker.start(request)

    def _next_report(self) -> None:
        """Wait for a report and decide on it; a worker that is of no use any more is replaced."""
        history = self._history
        try:
            joined = None if history is None else self._replacing.joined(must_wait=not self.fleet.running)
            if history is not None and joined is not None:
                self._note(history.slots(joined, self._training_seconds()))
                return
            workers = [member.worker for member in self.fleet.running if member.worker is not None]
            worker, report = self._engine.next_report(workers, self._while_waiting)
        except WorkerFault as fault:
            if history is None or fault.worker is None:
                raise  # a worker in this process holds its memory until the phase lets it go
            self._replace(history, fault)
            return
        arrived = time.monotonic()
        member = self.fleet.with_worker(worker)
        tokens_before = self.roster.sae_tokens()
        if history is None:
            self._decide_on(member, report)
            if self._new_policy is not None and self.roster.has_caught_up():
                self._decide(self._change_policy())
        else:
            self._note(history.reported(member.number, report, self._training_seconds()))
        trained = max(0, self.roster.sae_tokens() - tokens_before)
        self.trained_tokens += trained
        self.publisher.block_done(member, report, report.seconds + time.monotonic() - arrived, trained)
        if history is not None and self._snapshot_pace.is_due():
            with self._snapshot_pace.taking():
                self._snapshot(history)

    def _decide_on(self, member: Member, report: BlockReport) -> None:
        member.reported(report)
        self.publisher.checkpoints(report.saved)
        for event in report.events:
            self._bus.emit(event_of(event))
        self._decide(self._reports.record(self._state, report, member.number))
        for note in report.notes:
            self._bus.emit(event_of(note))

    def _while_waiting(self, worker: Worker | None, steps: int | None) -> None:
        """Say how far the block is, and that a stop was asked for.

        Args:
            worker: Who trains.
            steps: Of its block that are trained; None where that is not known.
        """
        if steps is not None and worker is not None:
            self.fleet.with_worker(worker).steps = steps
            self.publisher.within_block()
        if self._stop.requested and not self._said_stop:
            self._said_stop = True
            self._bus.emit(Note(level="info", message="finishing this block, then saving; Ctrl-C again stops now"))

    # ---------------------------------------------------------------- several workers

    def _note(self, line: Mapping[str, Any]) -> None:
        """Decide on what has just been noted, and on nothing else: so it can be repeated."""
        self._noted_seconds = line["seconds"]
        try:
            self._take(line)
        finally:
            self._noted_seconds = None

    def _take(self, line: Mapping[str, Any]) -> None:
        if line["kind"] == "report":
            self._decide_on(self.fleet.get_or_add(line["worker"]), BlockReport.from_json(line["report"]))
        elif line["kind"] == "slots":
            self._take_slots(SlotsLine.from_json(line["slots"]))
        else:
            number, reason = line["number"], line["reason"]
            self._decide(Failed(number=number, reason=reason), {number: reason})

    def _take_slots(self, line: SlotsLine) -> None:
        """A worker has joined, gone back to a checkpoint or left: its trials are again what its checkpoint holds of them."""
        member = self.fleet.get_or_add(line.worker)
        member.resumed_at(line)
        own = self.roster.go_back(line)
        for number in line.tokens:  # its checkpoint may hold some that have ended since, or train elsewhere
            if number not in own:
                member.todo.remove(number)
        for trial in own.values():
            self._log.rewind_trial(trial.number, trial.tokens)
        stay = [trial for trial in own.values() if trial.slot is not None]
        self._decide(line.event({number: trial.tokens for number, trial in own.items()}))
        for trial in stay:
            if trial.slot is not None and trial.worker == line.worker:
                self._place(trial, trial.slot, line.worker)
        self.publisher.worker(member)

    def _replace(self, history: History, fault: WorkerFault) -> None:
        """Let the trials of a worker that is of no use any more train elsewhere, or there with fewer at once."""
        member = self.fleet.with_worker(fault.worker)
        trials = self._state.training_on(member.number)
        found = self._replacing.after(member, fault, [trial.number for trial in trials])
        self._warn(found.message)
        for number, reason in found.failed.items():
            self._note(history.failed(number, reason, self._training_seconds()))
        self._note(history.slots(found.line, self._training_seconds()))

    def _snapshot(self, history: History) -> None:
        history.save(self._saved() | {"workers": [member.to_json() for member in self.fleet]})

    # ---------------------------------------------------------------- decisions

    def _decide(self, event: Any, failed: Mapping[int, str] | None = None) -> None:
        self._decide_and_do(event, failed)
        if self._patience.wanted is not None and self.stop_reason in (None, "complete"):
            policy, self.stop_reason = self._patience.review(self._state.policy, self.stop_reason)
            if policy is not None:
                self._decide(PolicyChanged(policy=policy))

    def _decide_and_do(self, event: Any, failed: Mapping[int, str] | None) -> None:
        self._state, actions = decide(self._state, event)
        failed = dict(event.failed) if isinstance(event, BlockDone) else failed or {}
        for action in actions:
            if self._new_policy is not None and self.roster.is_new(action):
                self._decide(self._change_policy())  # what was left to do was asked for by the rules of before
                return
            if isinstance(action, (Place, Ask)):
                if self.stop_reason is not None:  # stopped while an earlier ask was answered
                    return
                search, ended = self._session.experiment.spec.search, self.roster.ended_trials()
                reason = stop_reason(search, self._session.objective, ended, self._training_seconds())
                if reason is not None:
                    # Not final: what still trains stays as it is, and continues where the limit is raised.
                    self._decide(StopRequested(reason=reason))
                    return
            if isinstance(action, Ask) and action.retry_of is None and self._patience.is_out() is not None:
                self._decide(PolicyChanged(policy=self._patience.held(self._state)))
                return
            self._carry_out(action, failed)

    def _change_policy(self) -> PolicyChanged:
        """Let the rules of the file hold; a checkpoint says so before anything is asked by them. Return the event."""
        if self._new_policy is not None:
            self._state = replace(self._state, policy=self._new_policy, pending={}, retrying={})
            self._new_policy = self._patience.wanted = None
            self._save()
        return PolicyChanged(policy=self._state.policy)

    def _carry_out(self, action: Action, failed: Mapping[int, str]) -> None:
        if isinstance(action, Ask):
            if action.retry_of is not None:
                params = self._search.study.repeat(action.number, self.roster[action.retry_of].params)
            else:
                position, cannot_keep = self.roster.suggested[self._session.label], self._session.cannot_keep_limits
                expected = expected_of(expected_ends(self._state), self._session.objective)
                params = self._search.ask(action.number, action.stratum, position, expected, cannot_keep)
            trial = self.roster.add(action.number, params, action.retry_of)
            self._decide(answer(action, trial, self._search.policy))
        elif isinstance(action, Place):
            self._place(self.roster[action.number], action.slot, action.worker)
        elif isinstance(action, Prune):
            self.roster[action.number].expected = dict(action.expected)
            self._end(self.roster[action.number], "failed" if action.number in failed else "pruned", action.reason)
        elif isinstance(action, Complete):
            self._end(self.roster[action.number], "complete", "")
        elif isinstance(action, Stop):
            self.stop_reason = action.reason

    def _place(self, trial: Trial, index: int, worker: int) -> None:
        if (moved := self.fleet.place(trial, index, worker)) is not None:
            self._bus.emit(Note(level="info", message=moved))
        self._bus.emit(started(trial, index))

    def _end(self, trial: Trial, status: EndedStatus, reason: str) -> None:
        self.fleet.get_or_add(trial.worker).todo.remove(trial.number)
        self.roster.end(trial, status, reason)
        self._search.study.tell(trial.number, **tell_arguments(trial.state(), self._session.objective))
        save_trial_record(self._session.directory, trial)
        self._bus.emit(TrialEnded(number=trial.number, status=status, tokens=trial.tokens, reason=reason))

    # ---------------------------------------------------------------- what is kept

    def _warn(self, message: str) -> None:
        self._bus.emit(Note(level="warning", message=message))

    def _training_seconds(self) -> float:
        if self._noted_seconds is not None:
            return self._noted_seconds
        return self._seconds_before + time.monotonic() - self._started

    def _saved(self) -> dict[str, Any]:
        """Return the driver's part of a checkpoint: what it knows once the commands that wait are carried out."""
        return {
            "stream": self._session.label,
            "scheduler": self._state.to_json(),
            "trials": [trial.state() for trial in self.roster.trials.values()],
            "ended": self.roster.ended,
            "training_seconds": self._training_seconds(),
            "wanted_trials": self._patience.wanted,
        }

    def _save(self) -> None:
        """Write a checkpoint of every worker, then the driver's."""
        save_workers(self.fleet, self.publisher, self._saved, self._warn, is_only=self._history is None)
        if self._history is not None:
            self._snapshot(self._history)
