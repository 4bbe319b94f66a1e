"""Workers that join, go back to a checkpoint or are lost in a run with several, and what becomes of their trials."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from saesweep.driver.fleet import Fleet, Member, SlotsLine, folder_of
from saesweep.driver.outside import rewind
from saesweep.driver.session import Session, worker_plan
from saesweep.engines.protocol import Engine, OutOfMemory, WorkerFault
from saesweep.engines.records import Opened, WorkerPlan
from saesweep.errors import UserError
from saesweep.experiment import Experiment
from saesweep.runs import CheckpointStore, RunDirectory
from saesweep.scheduler import State
from saesweep.status import is_live

_REQUEST_SECONDS = 5.0
"""How often the engine is asked whether there is a device again for a worker that is gone."""


class NoWorkerLeft(UserError):
    """Every worker is gone, and there is no device for another one."""


@dataclass(frozen=True)
class Replaced:
    """What becomes of a worker that was of no use any more."""

    line: SlotsLine
    message: str
    failed: Mapping[int, str] = field(default_factory=dict)
    """Trials that cannot continue, with the reason."""


class Replacing:
    """Opens workers in the place of others.

    Args:
        session: What was opened and decided.
        engine: Where workers run.
        fleet: The workers.
    """

    def __init__(self, session: Session, engine: Engine, fleet: Fleet) -> None:
        self._session = session
        self._engine = engine
        self._fleet = fleet
        self._requested_at = time.monotonic()

    def begin(self) -> dict[int, int]:
        """Meet the workers of a run that begins; return the slots of each."""
        opened, self._fleet.opened = self._fleet.opened, {}
        self._fleet.members = opened
        for member in opened.values():
            member.began_at(_opened(member))
        return {number: self._slots(_opened(member)) for number, member in opened.items()}

    def met(self, state: State) -> Iterator[SlotsLine]:
        """Yield what has changed since the driver knew its workers: those that joined, went back or are gone.

        Args:
            state: The scheduler's, after all that was noted.

        Raises:
            UserError: A worker is further than what was noted.
        """
        if not self._fleet.opened:  # it has just begun, with these
            return
        opened, self._fleet.opened = self._fleet.opened, {}
        for number, n_slots in list(state.workers.items()):
            if n_slots and number not in opened:
                yield self._lost_line(self._fleet.get_or_add(number))
        for number, new in opened.items():
            member, found = self._fleet.get_or_add(number), _opened(new)
            member.worker, member.requested_device, member.device = new.worker, new.requested_device, new.device
            member.first_block = new.first_block
            if found.block > member.block:  # it was asked for that after its reports had been noted
                raise UserError(
                    f"{self._session.directory.reports_file}: its last lines are missing: worker {number} has a checkpoint of "
                    f"block {found.block}, and they end at block {member.block}; start a new run with --run-dir"
                )
            if state.workers.get(number) != self._slots(found) or not found.block <= member.block <= found.last_block:
                yield self._resumed_line(member, found)

    def joined(self, *, must_wait: bool) -> SlotsLine | None:
        """Return what is to be noted of a worker that has joined in the place of one that is gone; None where none has.

        Args:
            must_wait: Nobody trains: wait until somebody can.

        Raises:
            UserError: Nobody can.
        """
        self._request_worker(now=must_wait)
        member = self._fleet.opening
        if member is None or member.worker is None:
            if must_wait:
                raise NoWorkerLeft("no worker is left; once there are devices again, the same command resumes")
            return None
        if not (must_wait or member.worker.is_opened):
            return None
        self._fleet.opening = None
        try:
            found = member.worker.opened
        except WorkerFault as fault:
            member.worker.close()
            if must_wait:
                raise NoWorkerLeft(f"no worker is left ({fault.reason}); the same command resumes") from fault
            return None
        member.adopt(member.worker)
        self._fleet.members[member.number] = member
        return self._resumed_line(member, found)

    def after(self, member: Member, fault: WorkerFault, trials: Sequence[int]) -> Replaced:
        """Replace a worker that is of no use any more: with fewer SAEs at once where memory has run out.

        Args:
            member: The worker.
            fault: What happened.
            trials: Those in its slots.
        """
        worker, member.worker = member.worker, None
        if worker is not None:
            worker.close()
        failed = {}
        if isinstance(fault, OutOfMemory):
            where = self._session.directory.of_worker(folder_of(member.number))
            replicates = self._session.replicates
            try:
                before, after = halve(where, replicates, fault.reason, is_measuring=fault.is_measuring)
                what_happened = (
                    f"out of memory with {before} SAEs at once; it continues with {after} from its last checkpoint"
                )
            except UserError:
                failed = dict.fromkeys(trials, f"memory does not suffice for this trial alone: {fault.reason}")
                what_happened = f"out of memory with a single trial, {', '.join(map(str, trials))}, which has failed"
            try:
                reopened = self._open(member)
                line = self._resumed_line(member, reopened)
            except WorkerFault as second:
                fault, what_happened = second, f"{what_happened}; then {second.reason}"
            else:
                return Replaced(line, f"worker {member.number}: {what_happened}; no other trial is lost", failed)
        else:
            what_happened = fault.reason
        line = self._lost_line(member)
        kept = "its trials continue from its last checkpoint as soon as another worker has a free slot"
        return Replaced(line, f"worker {member.number} is gone: {what_happened}; {kept}", failed)

    def _open(self, member: Member) -> Opened:
        worker = self._engine.open(self._plan(member), self._session.experiment)
        try:
            found = worker.opened
        except BaseException:
            worker.close()
            raise
        member.adopt(worker)
        return found

    def _plan(self, member: Member) -> WorkerPlan:
        return worker_plan(
            self._session.experiment,
            self._session.directory,
            self._session.visit.stream,
            member=member,
            sharing=len(self._fleet.devices),
        )

    def _request_worker(self, *, now: bool) -> None:
        """Begin to open another worker where one is gone and there is a device for it."""
        device = self._fleet.free_device()
        is_time = now or time.monotonic() - self._requested_at >= _REQUEST_SECONDS
        if device is None or self._fleet.opening is not None or not is_time:
            return
        self._requested_at = time.monotonic()
        member = Member(number=self._fleet.next_number, requested_device=device)
        plan = self._plan(member)
        if self._engine.has_room(plan):
            member.worker = self._engine.open(plan, self._session.experiment)
            self._fleet.opening = member

    def _slots(self, opened: Opened) -> int:
        """Return the driver's slots, each of which holds all replicates of a trial."""
        return max(1, opened.n_slots // self._session.replicates)

    def _resumed_line(self, member: Member, opened: Opened) -> SlotsLine:
        return SlotsLine(
            worker=member.number,
            n_slots=self._slots(opened),
            block=opened.block,
            first_block=member.first_block,
            stream_tokens=opened.stream_tokens,
            tokens=self._tokens(opened.steps),
        )

    def _lost_line(self, member: Member) -> SlotsLine:
        """Return the line of a worker that is gone, with what the last checkpoint in its folder holds."""
        folder = self._session.directory.of_worker(folder_of(member.number)).checkpoints
        saved = CheckpointStore(folder).latest_state()
        steps = {} if saved is None else {slot["trial"]: slot["step"] for slot in saved["slots"]}
        return SlotsLine(
            worker=member.number,
            n_slots=0,
            block=member.block,
            first_block=member.first_block,
            stream_tokens=member.stream_tokens,
            tokens=self._tokens(steps),
        )

    def _tokens(self, steps: Mapping[int, int]) -> dict[int, int]:
        batch_tokens = self._session.visit.stream.experiment.base_run().train_batch_size_tokens
        return {number: count * batch_tokens for number, count in steps.items()}


def _opened(member: Member) -> Opened:
    assert member.worker is not None
    return member.worker.opened


def shrink(experiment: Experiment, directory: RunDirectory, error: str, *, is_measuring: bool = False) -> str:
    """Halve the cohort of a run and take its study back to the last checkpoint; return what to tell the user.

    What trained since the checkpoint trains again, with other neighbours: the study must not hold its results.

    Args:
        experiment: The experiment.
        directory: The run.
        error: What ran out of memory.
        is_measuring: Whether it happened while SAEs were measured.

    Raises:
        UserError: There is only one trial in the cohort.
    """
    before, after = halve(directory, experiment.spec.search.replicates, error, is_measuring=is_measuring)
    state = CheckpointStore(directory.checkpoints).latest_state()
    rewind(experiment, directory, {} if state is None else tokens_at(state["driver"]))
    where = "the start" if state is None else "the last checkpoint"
    return f"out of memory with {before} SAEs at once; the run continues with {after} from {where}, no trial is lost"


def halve(directory: RunDirectory, replicates: int, error: str, *, is_measuring: bool = False) -> tuple[int, int]:
    """Halve a worker's cohort; return how many SAEs it held, and how many it will.

    Args:
        directory: The run, as the worker sees it.
        replicates: SAEs per trial.
        error: What ran out of memory.
        is_measuring: Whether it happened while SAEs were measured.

    Raises:
        UserError: There is only one trial in the cohort.
    """
    choices = directory.choices()
    before = int(choices["slots"])
    trials = before // replicates
    if trials <= 1 and is_measuring:
        raise UserError(
            f"out of memory while a single trial was measured ({error}). Make a forward pass over held-out contexts smaller: "
            "base.eval_batch_size_prompts (store_batch_size_prompts where it is not set), or base.context_size; or free "
            "memory. The same command resumes the run"
        )
    if trials <= 1:
        raise UserError(
            f"out of memory with a single trial in the cohort ({error}). Make it smaller: base.sae.d_sae, "
            "base.train_batch_size_tokens, search.replicates; or free memory. The same command resumes"
        )
    choices["slots"] = trials // 2 * replicates
    choices["slots_reason"] = f"memory ran out with {before}"
    directory.save_choices(choices)
    return before, choices["slots"]


def tokens_at(saved: Mapping[str, Any]) -> dict[int, int | None]:
    """Return by trial number the tokens it had seen at a checkpoint of the driver; None for one that had ended."""
    return {trial["number"]: trial["tokens"] if is_live(trial["status"]) else None for trial in saved["trials"]}
