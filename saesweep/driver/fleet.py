"""The workers of a run as the driver sees them: which block each is in, and what it has to do before the next one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from saesweep.driver.trials import Trial
from saesweep.engines.protocol import Worker
from saesweep.engines.records import BlockReport, Commands, Notice, Opened, Place, SnapshotTaken
from saesweep.events import Event, Note, SnapshotSaved
from saesweep.scheduler import SlotsChanged


class Todo:
    """What decisions ask of a worker, until it is asked for the next block."""

    def __init__(self, commands: Commands | None = None) -> None:
        self._remove = [] if commands is None else list(commands.remove)
        self._place = [] if commands is None else list(commands.place)

    def place(self, number: int, slot: int, params: Mapping[str, Any], source: str | None = None) -> None:
        """Let a trial be put in a slot, as the last checkpoint of another worker has it where one is named."""
        self._place.append(Place(number=number, slot=slot, params=params, source=source))

    def remove(self, number: int) -> None:
        """Let a trial that has ended be given up; one that was to be placed is not."""
        self._place = [place for place in self._place if place.number != number]
        self._remove.append(number)

    def waiting(self) -> Commands:
        """Return the commands."""
        return Commands(remove=tuple(self._remove), place=tuple(self._place))

    def taken(self) -> Commands:
        """Return the commands and forget them."""
        found = self.waiting()
        self._remove, self._place = [], []
        return found

    def put_back(self, commands: Commands) -> None:
        """Let commands that were taken come before those that wait: none of them was carried out."""
        removed = set(self._remove)
        kept = [place for place in commands.place if place.number not in removed]
        self._remove, self._place = [*commands.remove, *self._remove], [*kept, *self._place]


def event_of(happened: Notice | SnapshotTaken) -> Event:
    """Return the event for what a worker reported while it trained."""
    if isinstance(happened, Notice):
        return Note(level=happened.level, message=happened.message)
    return SnapshotSaved(
        number=happened.number,
        tokens=happened.tokens,
        path=happened.path,
        is_final=happened.is_final,
        replicate=happened.replicate,
    )


def folder_of(number: int) -> str:
    """Return the folder in the run directory of what belongs to a worker alone: the first one's is the run directory."""
    return "" if number == 0 else f"workers/{number}"


@dataclass
class Member:
    """One worker. Its number is never given to another one."""

    number: int
    worker: Worker | None = None
    """None while its reports are repeated from the log, and when it is gone."""
    requested_device: str = ""
    """The device that it was to have; empty: `base.device`."""
    device: str = ""
    """The one that it has."""
    block: int = 0
    """Blocks that it has reported."""
    first_block: int = 0
    """Those of them on earlier streams."""
    stream_tokens: int = 0
    epoch: int = 0
    skipped_batches: int = 0
    unreadable_rows: int = 0
    todo: Todo = field(default_factory=Todo)
    taken: Commands | None = None
    """The commands of the block that it trains; None between two blocks."""
    wants_checkpoint: bool = False
    steps: int = 0
    """Of that block which are trained, where it is known."""
    is_lost: bool = False

    def adopt(self, worker: Worker) -> None:
        """Take an opened worker that is where the driver believes it to be."""
        self.worker, self.device = worker, worker.opened.device

    def began_at(self, opened: Opened) -> None:
        """Note where a worker is that has just been opened."""
        self.block, self.stream_tokens = opened.block, opened.stream_tokens
        self.skipped_batches = opened.skipped_batches

    def resumed_at(self, line: SlotsLine) -> None:
        """Note where a worker is that has gone back to a checkpoint, or begins, or is gone."""
        self.block, self.first_block, self.stream_tokens = line.block, line.first_block, line.stream_tokens
        self.taken, self.wants_checkpoint, self.steps, self.todo = None, False, 0, Todo()
        self.is_lost = line.n_slots == 0

    def reported(self, report: BlockReport) -> None:
        """Note a report."""
        self.block, self.stream_tokens, self.epoch = report.number, report.stream_tokens, report.epoch
        self.skipped_batches, self.unreadable_rows = report.skipped_batches, report.unreadable_rows
        self.taken, self.wants_checkpoint, self.steps = None, report.wants_checkpoint, 0

    def put_back(self) -> None:
        """Let the commands of a block that was not reported be given again."""
        if self.taken is not None:
            self.todo.put_back(self.taken)
            self.taken = None

    def to_json(self) -> dict[str, Any]:
        """Return what a restarted driver has to know of it."""
        return {
            "number": self.number,
            "block": self.block,
            "first_block": self.first_block,
            "stream_tokens": self.stream_tokens,
            "todo": json.loads(self.todo.waiting().to_json()),
            "taken": None if self.taken is None else json.loads(self.taken.to_json()),
            "wanted": self.requested_device,  # keys of the run directory keep their names
            "is_gone": self.is_lost,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Member:
        """Return the worker that `to_json` described, not open."""

        def commands(found: Any) -> Commands:
            return Commands.from_json(json.dumps(found))

        return cls(
            number=data["number"],
            block=data["block"],
            first_block=data["first_block"],
            stream_tokens=data["stream_tokens"],
            todo=Todo(commands(data["todo"])),
            taken=None if data["taken"] is None else commands(data["taken"]),
            requested_device=data["wanted"],
            is_lost=data["is_gone"],
        )


class Fleet:
    """The workers by number, in the order in which they joined."""

    def __init__(self, members: Iterable[Member] = (), devices: Sequence[str] = ("",)) -> None:
        self.members = {member.number: member for member in members}
        self.devices = tuple(devices)
        """Where workers are to train."""
        self.opened: dict[int, Member] = {}
        """Workers that have been opened and that the driver has not met yet."""
        self.opening: Member | None = None
        """One that is opened in the place of one that is gone."""

    @classmethod
    def of(cls, worker: Worker) -> Fleet:
        """Return a fleet of one."""
        member = Member(number=0)
        member.adopt(worker)
        member.began_at(worker.opened)
        return cls([member])

    def __iter__(self) -> Iterator[Member]:
        return iter(self.members.values())

    def __getitem__(self, number: int) -> Member:
        return self.members[number]

    def get_or_add(self, number: int) -> Member:
        """Return a worker; one that is not known yet is added."""
        return self.members.setdefault(number, Member(number=number))

    def place(self, trial: Trial, slot: int, worker: int) -> str | None:
        """Let a worker put a trial in a slot; return what to say where it was on another one."""
        member, moved = self.get_or_add(worker), None
        if trial.joined_at_tokens is not None and trial.worker != worker:
            self.get_or_add(trial.worker).todo.remove(trial.number)
            trial.moves.append({"worker": worker, "tokens": trial.tokens, "stream_tokens": member.stream_tokens})
            moved = f"trial {trial.number} continues at {trial.tokens} tokens on worker {worker}"
        member.todo.place(trial.number, slot, trial.params, trial.source)
        if trial.joined_at_tokens is None:  # else a worker has its state, and where it joined
            trial.joined_at_tokens = member.stream_tokens
        trial.status, trial.slot, trial.worker = "training", slot, worker
        return moved

    @property
    def open_members(self) -> list[Member]:
        """Those that are open."""
        return [member for member in self if member.worker is not None]

    @property
    def running(self) -> list[Member]:
        """Those that train a block."""
        return [member for member in self.open_members if member.taken is not None]

    @property
    def next_number(self) -> int:
        """Number of the next worker that joins."""
        return max([*self.members, *self.opened], default=-1) + 1

    def with_worker(self, worker: Worker | None) -> Member:
        """Return the member that an open worker is."""
        return next(member for member in self if member.worker is worker and worker is not None)

    @property
    def _known(self) -> list[tuple[int, Opened]]:
        everybody = {**self.members, **self.opened}.values()
        return [(member.number, member.worker.opened) for member in everybody if member.worker is not None]

    @property
    def n_slots(self) -> int:
        """SAEs that train at once, on all workers."""
        return sum(opened.n_slots for _, opened in self._known)

    def details(self) -> tuple[str, ...]:
        """Return what the workers chose and why; of several, with the number of each."""
        known = self._known
        if len(known) == 1:
            return known[0][1].details
        return tuple(f"worker {number}: {detail}" for number, opened in known for detail in opened.details)

    def damaged(self) -> tuple[str, ...]:
        """Return a message about each checkpoint that could not be read."""
        return tuple(message for _, opened in self._known for message in opened.damaged)

    def any_worker(self) -> Worker:
        """Return a worker that is open: winners are measured by any, their exports lie in the run directory."""
        worker = self.open_members[0].worker
        assert worker is not None
        return worker

    def close(self) -> None:
        """Close every worker, also where one cannot be closed."""
        with ExitStack() as stack:
            opening = [] if self.opening is None else [self.opening]
            for member in [*{**self.members, **self.opened}.values(), *opening]:
                if member.worker is not None:
                    stack.callback(member.worker.close)
                    member.worker = None

    def free_device(self) -> str | None:
        """Return a device that no open worker has; None where each has one."""
        used = Counter(member.requested_device for member in [*self.open_members, *self.opened.values()])
        free = Counter(self.devices) - used
        return next((device for device in self.devices if free[device]), None)

    @property
    def skipped_batches(self) -> int:
        """Batches left out because of NaN or infinities, over all starts of the run."""
        return sum(member.skipped_batches for member in self)

    @property
    def unreadable_rows(self) -> int:
        """Rows of the dataset that could not be used; all workers read the same ones."""
        return max(member.unreadable_rows for member in self)

    @property
    def stream_tokens(self) -> int:
        """The furthest position of the stream."""
        return max((member.stream_tokens for member in self), default=0)


@dataclass(frozen=True)
class SlotsLine:
    """A worker has joined, has gone back to a checkpoint, or is gone: what the log holds of it."""

    worker: int
    n_slots: int
    """Of the driver's slots; 0 where it is gone."""
    block: int
    first_block: int
    stream_tokens: int
    tokens: Mapping[int, int]
    """Of each live trial in its checkpoint, the tokens that it had seen."""

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {**vars(self), "tokens": [[number, tokens] for number, tokens in self.tokens.items()]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SlotsLine:
        """Return the line that `to_json` described."""
        return cls(**{**data, "tokens": dict(data["tokens"])})

    def event(self, tokens: Mapping[int, int]) -> SlotsChanged:
        """Return the scheduler's event, with the tokens of the trials that have gone back."""
        return SlotsChanged(n_slots=self.n_slots, worker=self.worker, tokens_seen=tokens)
