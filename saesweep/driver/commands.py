"""The commands that wait for a worker's next block, and what it says to people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saesweep.engines.records import Commands, Place, Said, SnapshotTaken
from saesweep.events import Event, Note, SnapshotSaved


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
        """Let commands that were taken come before those that wait: nobody has carried them out."""
        removed = set(self._remove)
        kept = [place for place in commands.place if place.number not in removed]
        self._remove, self._place = [*commands.remove, *self._remove], [*kept, *self._place]


def told(said: Said | SnapshotTaken) -> Event:
    """Return the event that tells people what a worker said."""
    if isinstance(said, Said):
        return Note(level=said.level, message=said.message)
    return SnapshotSaved(
        number=said.number, tokens=said.tokens, path=said.path, is_final=said.is_final, replicate=said.replicate
    )
