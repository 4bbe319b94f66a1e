"""A tree of plain data with the place in the file that each part came from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from saesweep.errors import ExperimentError, Problem

Place = tuple[str | int, ...]
"""The way to a value from the root: keys of mappings, indices of lists."""

_MAX_DEPTH = 64


@dataclass(frozen=True, kw_only=True)
class Mark:
    """Where a key or a value was written."""

    file: str | None
    line: int | None = None
    column: int | None = None
    source: str | None = None


@dataclass
class Document:
    """Plain data (dicts with text keys, lists, scalars), the marks of its parts, and what is wrong with it.

    Checks add their findings with `add`, so that one reading reports every mistake.
    """

    tree: dict[str, Any]
    file: str | None = None
    keys: dict[Place, Mark] = field(default_factory=dict)
    values: dict[Place, Mark] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    references: dict[Place, str] = field(default_factory=dict)
    """Texts with `${env:NAME}` as they were written, by the place of the value that was filled in."""
    environment: dict[str, str] = field(default_factory=dict, repr=False)
    """The variables that they name, as far as they are set."""
    meant: dict[Place, Problem] = field(default_factory=dict)
    """Places that values under unknown keys were meant for, and those mistakes: that nothing stands there follows from them."""

    def mark(self, place: Place, *, at_key: bool = False) -> Mark:
        """Return the mark of a place, or of the nearest enclosing part that was written."""
        own, other = (self.keys, self.values) if at_key else (self.values, self.keys)
        found = own.get(place) or other.get(place)
        while found is None and place:
            place = place[:-1]
            # A block's value begins on the line after its key: for something missing in it, point to the key.
            found = self.keys.get(place) or self.values.get(place)
        return found or Mark(file=self.file)

    def add(self, place: Place, message: str, *, at_key: bool = False) -> Problem:
        """Note a mistake; the same mistake at the same place is noted once."""
        return self.add_at(self.mark(place, at_key=at_key), place, message)

    def add_unknown_key(self, place: Place, message: str, meant: Place | None) -> None:
        """Note a key that does not exist.

        Args:
            place: Where it was written.
            message: What is wrong, with what was meant where that can be told.
            meant: The place that its value was meant for; None where it is not known.
        """
        problem = self.add(place, message, at_key=True)
        if meant is not None and not is_written(self.tree, meant):
            self.meant[meant] = problem

    def add_at(self, mark: Mark, place: Place, message: str) -> Problem:
        """Note a mistake at a mark of its own."""
        problem = Problem(
            path=dotted(place),
            message=message,
            file=mark.file,
            line=mark.line,
            column=mark.column,
            source=mark.source,
        )
        if problem not in self.problems:
            self.problems.append(problem)
        return problem

    def raise_problems(self) -> None:
        """Raise what was noted, in the order of the file, without what follows from a misspelt key.

        Raises:
            ExperimentError: Anything was noted.
        """
        if self.problems:
            last = 10**9
            meant = {dotted(place): cause for place, cause in self.meant.items()}
            causes = [problem for problem in self.problems if meant.get(problem.path, problem) == problem]
            raise ExperimentError(sorted(causes, key=lambda p: (p.line or last, p.column or last)))

    def forget(self, place: Place) -> None:
        """Drop the marks of a place and of everything below it, because the value there is replaced."""
        for marks in (self.keys, self.values):
            for known in [p for p in marks if p[: len(place)] == place]:
                del marks[known]


def block(tree: Any, *place: str) -> dict[str, Any]:
    """Return the mapping at a place, empty where there is none."""
    for part in place:
        tree = tree.get(part) if isinstance(tree, Mapping) else None
    return dict(tree) if isinstance(tree, Mapping) else {}


def is_written(tree: Any, place: Place) -> bool:
    """Return whether a key is there, whatever its value."""
    return bool(place) and place[-1] in block(tree, *map(str, place[:-1]))


def dotted(place: Place) -> str:
    """Return the way to a value as people write it: `space.lr.float`, `search.baselines[0]`."""
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def from_mapping(source: Mapping[Any, Any]) -> Document:
    """Return the document of a mapping from Python; it has no lines."""
    document = Document(tree={})
    tree = _plain(source, (), document)
    document.tree = tree if isinstance(tree, dict) else {}
    return document


def _plain(value: Any, place: Place, document: Document) -> Any:
    if len(place) > _MAX_DEPTH:
        document.add(place, f"nested more than {_MAX_DEPTH} levels deep")
        return None
    if isinstance(value, Mapping):
        result: dict[str, Any] = {}
        for key, item in value.items():
            if isinstance(key, str):
                result[key] = _plain(item, (*place, key), document)
            else:
                document.add(place, f"key {show(key)} is not text; quote it")
        return result
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray)):
        return [_plain(item, (*place, index), document) for index, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        document.add(place, f"{value} is not a finite number; leave the key out for no limit")
        return None
    # Exact types: a subclass such as an enum or numpy.float64 would not survive being saved and read again.
    if value is None or type(value) in (bool, int, float, str):
        return value
    document.add(place, f"is a {type(value).__name__}; use plain values: text, numbers, true/false, lists and mappings")
    return None


def show(value: Any) -> str:
    """Return a value as a message shows it, short and as YAML writes it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    text = repr(list(value)) if isinstance(value, tuple) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def flow(value: Any) -> str:
    """Return a value as a line of YAML."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(map(flow, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)
