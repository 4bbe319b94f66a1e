"""`--set path=value`: change one value of an experiment from the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from saesweep.experiment.document import Document, Mark, Place, show
from saesweep.experiment.fields import known_paths
from saesweep.experiment.yaml_text import read_value

LABEL = "--set"
_DOTTED_KEYS = (("space",), ("by_architecture", "*"), ("search", "baselines", "*"))
"""Mappings whose keys hold dots themselves; `*` stands for any key or index."""


def apply_overrides(document: Document, overrides: Sequence[str]) -> None:
    """Apply `path=value` texts in order; values follow the scalar rules of the file. Mistakes are noted."""
    for text in overrides:
        path, equals, raw = text.partition("=")
        path = path.strip()
        if not equals or not path:
            complain(document, (), f"{text!r} is not path=value, such as base.lr=1e-4", LABEL)
            continue
        if not raw.strip():
            complain(document, tuple(path.split(".")), f"nothing follows the =; write {path}=null for no value", LABEL)
            continue
        value, problems = read_value(raw, LABEL)
        parts = path.split(".")
        if problems:
            for problem in problems:
                complain(document, tuple(parts), problem, LABEL)
            continue
        assign(document, parts, value, LABEL)


def check_overridden(document: Document, overrides: Sequence[str]) -> None:
    """Note values set under `base` of what `space` searches in every trial: they would be accepted and never hold."""
    space = document.tree.get("space")
    for text in overrides:
        path, _, raw = text.partition("=")
        if not raw.strip():  # it has been said what is missing
            continue
        field = path.strip().removeprefix("base.")
        entry = space.get(field) if isinstance(space, dict) and path.strip() == f"base.{field}" else None
        ranges = entry if isinstance(entry, list) else [entry]
        if any(isinstance(each, dict) and not each.get("when") for each in ranges):
            complain(
                document,
                tuple(path.strip().split(".")),
                f"space.{field} gives every trial a value of its own, so that this one would never hold; to give all trials "
                f"the same, write --set 'space.{field}={{choice: [{raw.strip()}]}}'",
                LABEL,
            )


def complain(document: Document, place: Place, message: str, label: str) -> None:
    """Note a mistake of the command line at a place; `label` is the argument that it came from."""
    document.keys[place] = document.values[place] = Mark(file=label)
    document.add(place, message)


def assign(document: Document, parts: list[str], value: Any, label: str) -> None:
    """Set the value at the keys `parts`; from then on `label` is its place."""
    node: Any = document.tree
    place: Place = ()
    rest = parts
    while True:
        key, rest = _next_key(node, place, rest)
        if isinstance(node, list):
            if not key.isdecimal() or int(key) >= len(node):
                complain(document, (*place, key), f"{key!r} is no place in a list of {len(node)}; count from 0", label)
                return
            step: str | int = int(key)
        else:
            step = key
        place = (*place, step)
        if not rest:
            break
        if isinstance(node, dict) and step not in node:
            node[key] = {}
            document.keys[place] = document.values[place] = Mark(file=label)
        child = node[step]
        if child is None and isinstance(node, dict):
            child = node[key] = {}
        if not isinstance(child, (dict, list)):
            complain(document, place, f"is {show(child)}, not a mapping; {'.'.join(rest)!r} cannot be set in it", label)
            return
        node = child
    document.forget(place)
    document.keys[place] = document.values[place] = Mark(file=label)
    node[step] = value


def _next_key(node: Any, place: Place, parts: list[str]) -> tuple[str, list[str]]:
    """Return the key of this mapping that the path continues with, and the rest of the path."""
    if not _has_dotted_keys(place):
        return parts[0], parts[1:]
    # Longest first: `sae.k.int` means the key `int` of the entry `sae.k`, whether or not that entry exists yet.
    for known in (set(node), set(known_paths())):
        for length in range(len(parts), 0, -1):
            key = ".".join(parts[:length])
            if key in known:
                return key, parts[length:]
    # No such field: the whole path is the key, so that the check of keys names it; a range's own key stays apart.
    if place == ("space",) and len(parts) > 1 and parts[-1] in ("float", "int", "choice", "log", "step", "grid"):
        return ".".join(parts[:-1]), parts[-1:]
    return ".".join(parts), []


def _has_dotted_keys(place: Place) -> bool:
    return any(
        len(place) == len(pattern) and all(want in ("*", part) for want, part in zip(pattern, place, strict=True))
        for pattern in _DOTTED_KEYS
    )
