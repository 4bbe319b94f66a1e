"""Opening the workers of a run with several: those that it had, as far as there are devices, then new ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from saesweep.driver.fleet import Fleet, Member, SlotsLine, folder_of
from saesweep.driver.history import History
from saesweep.driver.memory import halve, tokens_at
from saesweep.driver.session import worker_plan
from saesweep.driver.study_place import rewind
from saesweep.engines.protocol import Engine, OutOfMemory, WorkerLost
from saesweep.errors import UserError
from saesweep.events import EventBus, Note
from saesweep.experiment import Experiment, Stream
from saesweep.runs import RunDirectory


def open_fleet(
    experiment: Experiment,
    directory: RunDirectory,
    engine: Engine,
    bus: EventBus,
    stream: Stream,
    history: History,
    devices: Sequence[str],
) -> Fleet:
    """Open one worker for each device. The first one finds what all go by; the others are opened together.

    Args:
        experiment: The whole experiment.
        directory: The run directory, as the stream sees it.
        engine: Where workers run.
        bus: Who wants to know.
        stream: What they open.
        history: What the driver knew of its workers.
        devices: Where they are to train.

    Raises:
        UserError: The model or the data cannot be had, memory holds no SAE, or there are not so many devices.
    """
    fleet = Fleet(devices=devices)
    try:
        for member in _members(history, stream, devices):
            fleet.opened[member.number] = member
            _open(experiment, directory, engine, stream, member, len(devices), is_first=len(fleet.opened) == 1)
            if len(fleet.opened) == 1:
                _wait(experiment, directory, engine, bus, stream, member, len(devices), is_first=True)
        for member in list(fleet.opened.values())[1:]:
            _wait(experiment, directory, engine, bus, stream, member, len(devices), is_first=False)
    except BaseException:
        fleet.close()
        raise
    return fleet


def taken_over(experiment: Experiment, directory: RunDirectory, first: Member) -> Mapping[str, Any] | None:
    """Return what the driver had saved while the run had one worker, with the study taken back to that moment.

    What trained since is repeated, but not decided on in the same order.
    """
    assert first.worker is not None
    saved = first.worker.opened.driver
    if saved is None:
        rewind(experiment, directory, {})
        return None
    rewind(experiment, directory, tokens_at(saved))
    opened = first.worker.opened
    known = Member(number=0, block=opened.block, stream_tokens=opened.stream_tokens, wanted=first.wanted)
    return {**saved, "workers": [known.to_json()]}


def _members(history: History, stream: Stream, devices: Sequence[str]) -> list[Member]:
    """Return the workers to open: known ones keep their number, which names their folder."""
    saved = history.saved() if history.exists else None
    known = {} if saved is None else {data["number"]: Member.from_json(data) for data in saved["workers"]}
    for line in history.lines() if saved is not None else ():
        if line["kind"] == "slots":
            found = SlotsLine.from_json(line["slots"])
            member = known.setdefault(found.worker, Member(number=found.worker))
            member.first_block, member.is_gone = found.first_block, found.n_slots == 0
    if saved is not None and saved["stream"] != stream.label:
        for member in known.values():
            member.first_block = member.block
    free, chosen = list(devices), list[Member]()
    for member in known.values():
        if not member.is_gone and free:
            member.wanted = member.wanted if member.wanted in free else free[0]
            free.remove(member.wanted)
            chosen.append(member)
    begin = max(known, default=-1) + 1
    return [*chosen, *(Member(number=begin + place, wanted=device) for place, device in enumerate(free))]


def _open(
    experiment: Experiment,
    directory: RunDirectory,
    engine: Engine,
    stream: Stream,
    member: Member,
    sharing: int,
    *,
    is_first: bool,
) -> None:
    plan = worker_plan(experiment, directory, stream, member, sharing)
    member.worker = engine.open(replace(plan, measures_references=is_first), experiment)


def _wait(
    experiment: Experiment,
    directory: RunDirectory,
    engine: Engine,
    bus: EventBus,
    stream: Stream,
    member: Member,
    sharing: int,
    *,
    is_first: bool,
) -> None:
    """Wait until a worker is open; where memory runs out meanwhile, with half its cohort."""
    while True:
        assert member.worker is not None
        try:
            member.device = member.worker.opened.device
            return
        except WorkerLost as fault:
            raise UserError(
                f"cohort.devices: worker {member.number} could not be started: {fault.reason}. Ask for fewer devices, or "
                "free one; the same command resumes"
            ) from fault
        except OutOfMemory as fault:
            where, replicates = directory.of_worker(folder_of(member.number)), experiment.spec.search.replicates
            before, after = halve(where, replicates, fault.reason, is_measuring=fault.is_measuring)
            member.worker.close()
        message = f"worker {member.number}: out of memory with {before} SAEs at once; going on with {after}"
        bus.emit(Note(level="warning", message=message))
        _open(experiment, directory, engine, stream, member, sharing, is_first=is_first)
