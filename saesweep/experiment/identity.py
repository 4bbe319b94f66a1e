"""Whether two experiments are the same one: what a run directory may and may not be continued with."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from saesweep.experiment.document import show

_MAY_CHANGE = (
    *(
        ("search", key)
        for key in (
            "trials",
            "storage",
            "tokens_budget",
            "time_budget",
            "target",
            "patience",
            "confirm",
            "max_failed",
            "retry_failed",
        )
    ),
    *(("cohort", key) for key in ("devices", "checkpoint_seconds", "memory_fraction", "max_skipped_batches")),
    ("base", "logger"),
    ("engine", "ray"),
    ("evaluation", "references"),
)
"""When to stop, what follows the search, when and where things are written: none of it changes a trial that has run."""
_BOUNDED = ("float", "int")
_ABSENT = object()


def _fixed_part(tree: Mapping[str, Any]) -> dict[str, Any]:
    fixed = copy.deepcopy(dict(tree))
    for section, key in _MAY_CHANGE:
        block = fixed.get(section)
        if isinstance(block, dict):
            block.pop(key, None)
            if not block:  # an empty section says the same as none
                del fixed[section]
    kwargs = fixed.get("base", {}).get("model_from_pretrained_kwargs") if isinstance(fixed.get("base"), dict) else None
    if isinstance(kwargs, dict):
        kwargs.pop("token", None)  # who asks changes nothing of what is read
        if not kwargs:
            del fixed["base"]["model_from_pretrained_kwargs"]
    return fixed


def _without_bounds(tree: dict[str, Any]) -> dict[str, Any]:
    """Return the same without the bounds of ranges: they may widen, which takes both experiments to tell."""

    def unbounded(entry: Any) -> Any:
        if isinstance(entry, list):
            return [unbounded(one) for one in entry]
        return {k: None if k in _BOUNDED else v for k, v in entry.items()} if isinstance(entry, dict) else entry

    space = tree.get("space")
    if not isinstance(space, dict):
        return tree
    return {**tree, "space": {path: unbounded(entry) for path, entry in space.items()}}


def fingerprint_of(tree: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the parts of an experiment that must not change when it is resumed."""
    text = json.dumps(_without_bounds(_fixed_part(tree)), sort_keys=True, ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def describe_changes(old_tree: Mapping[str, Any], new_tree: Mapping[str, Any]) -> list[str]:
    """Return `path: old -> new` for every difference that makes another experiment; empty where there is none.

    A range that has only become wider makes none: every trial so far still lies in it.
    """
    return _differences(_fixed_part(old_tree), _fixed_part(new_tree), "")


def _differences(old: Any, new: Any, path: str) -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        if path.startswith("space."):
            old = _widened(old, new)
        found = []
        for key in dict.fromkeys([*old, *new]):
            found += _differences(old.get(key, _ABSENT), new.get(key, _ABSENT), f"{path}.{key}" if path else key)
        return found
    if path.startswith("space.") and _are_ranges(old) and _are_ranges(new) and len(old) == len(new):
        return [change for i in range(len(old)) for change in _differences(old[i], new[i], f"{path}[{i}]")]
    # `1` and `True`, or `64` and `64.0`, compare equal and are written differently.
    if type(old) is type(new) and old == new and repr(old) == repr(new):
        return []
    return [f"{path}: {_text(old)} -> {_text(new)}"]


def _are_ranges(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def _widened(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return a range with the new bounds where those lie around its own; a `step` counts from the lower bound."""
    found = dict(old)
    for kind in _BOUNDED:
        bounds: list[Any] = [old.get(kind), new.get(kind)]
        if "step" not in old and all(isinstance(b, (list, tuple)) and len(b) == 2 for b in bounds):
            (low, high), (new_low, new_high) = bounds
            if new_low <= low and high <= new_high:
                found[kind] = new[kind]
    return found


def _text(value: Any) -> str:
    return "absent" if value is _ABSENT else show(value)
