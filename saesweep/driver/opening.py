"""Opening the workers of a run with several: those that it had, as far as there are devices, then new ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from saesweep.driver.fleet import Fleet, Member, SlotsLine, folder_of
from saesweep.driver.history import History, held_by_checkpoint
from saesweep.driver.outside import rewind
from saesweep.driver.replacing import halve, tokens_at
from saesweep.driver.session import worker_plan
from saesweep.engines.protocol import Engine, OutOfMemory, WorkerLost
from saesweep.errors import UserError
from saesweep.events import EventBus, Note
from saesweep.experiment import Experiment, Stream
from saesweep.runs import RunDirectory


@dataclass(frozen=True)
class Opener:
    """Opens the workers of a stream."""

    experiment: Experiment
    """The whole experiment."""
    directory: RunDirectory
    """The run directory, as the stream sees it."""
    engine: Engine
    """Where workers run."""
    bus: EventBus
    stream: Stream
    """What they open."""
    devices: Sequence[str]
    """Where they are to train."""

    def open(self, history: History) -> Fleet:
        """Open one worker for each device. The first one finds what all go by; the others are opened together.

        Args:
            history: What the driver knew of its workers.

        Raises:
            UserError: The model or the data cannot be had, memory holds no SAE, or there are not so many devices.
        """
        fleet = Fleet(devices=self.devices)
        try:
            first, *others = _members(history, self.stream, self.devices)
            fleet.opened[first.number] = first
            self._open(first, is_first=True)
            self._wait(first, is_first=True)
            for member in others:
                fleet.opened[member.number] = member
                self._open(member)
            for member in others:
                self._wait(member)
        except BaseException:
            fleet.close()
            raise
        return fleet

    def _open(self, member: Member, *, is_first: bool = False) -> None:
        """Begin to open a worker; where memory runs out at once, with half its cohort."""
        while True:
            plan = worker_plan(self.experiment, self.directory, self.stream, member, len(self.devices))
            try:
                member.worker = self.engine.open(replace(plan, measures_references=is_first), self.experiment)
                return
            except OutOfMemory as fault:
                self._halve(member, fault)

    def _wait(self, member: Member, *, is_first: bool = False) -> None:
        """Wait until a worker is open; where memory runs out meanwhile, with half its cohort."""
        while True:
            assert member.worker is not None
            try:
                member.device = member.worker.opened.device
                return
            except WorkerLost as fault:
                raise UserError(
                    f"cohort.devices: worker {member.number} could not be started: {fault.reason}. Ask for fewer devices, "
                    "or free one; the same command resumes"
                ) from fault
            except OutOfMemory as fault:
                member.worker.close()
                self._halve(member, fault)
            self._open(member, is_first=is_first)

    def _halve(self, member: Member, fault: OutOfMemory) -> None:
        where, replicates = self.directory.of_worker(folder_of(member.number)), self.experiment.spec.search.replicates
        before, after = halve(where, replicates, fault.reason, is_measuring=fault.is_measuring)
        message = f"worker {member.number}: out of memory with {before} SAEs at once; it continues with {after}"
        self.bus.emit(Note(level="warning", message=message))


def taken_over(experiment: Experiment, directory: RunDirectory, first: Member) -> Mapping[str, Any] | None:
    """Return what the driver had saved while the run had one worker, with the study taken back to that moment.

    What trained since is repeated, but not decided on in the same order.
    """
    assert first.worker is not None
    saved = held_by_checkpoint(directory, first.worker.opened.driver)
    if saved is None:
        rewind(experiment, directory, {})
        return None
    rewind(experiment, directory, tokens_at(saved))
    opened = first.worker.opened
    known = Member(
        number=0, block=opened.block, stream_tokens=opened.stream_tokens, requested_device=first.requested_device
    )
    return {**saved, "workers": [known.to_json()]}


def _members(history: History, stream: Stream, devices: Sequence[str]) -> list[Member]:
    """Return the workers to open: known ones keep their number, which names their folder."""
    saved = history.saved() if history.exists else None
    known = {} if saved is None else {data["number"]: Member.from_json(data) for data in saved["workers"]}
    for line in history.lines() if saved is not None else ():
        if line["kind"] == "slots":
            found = SlotsLine.from_json(line["slots"])
            member = known.setdefault(found.worker, Member(number=found.worker))
            member.first_block, member.is_lost = found.first_block, found.n_slots == 0
    if saved is not None and saved["stream"] != stream.label:
        for member in known.values():
            member.first_block = member.block
    free, chosen = list(devices), list[Member]()
    for member in known.values():
        if not member.is_lost and free:
            member.requested_device = member.requested_device if member.requested_device in free else free[0]
            free.remove(member.requested_device)
            chosen.append(member)
    begin = max(known, default=-1) + 1
    return [*chosen, *(Member(number=begin + place, requested_device=device) for place, device in enumerate(free))]
