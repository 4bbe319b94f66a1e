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
_BOUNDED = ("float", "int")
_SEARCHED = ("space", "by_architecture")
"""What settings trials can be asked with; beside it `objective.matched.l0`."""
_TARGETS = "objective.matched.l0"
_LISTED = (".choice", ".grid", ".l0")
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
    """Return the SHA-256 of the parts of an experiment that decide what its trials are, apart from the bounds of ranges."""
    text = json.dumps(_without_bounds(_fixed_part(tree)), sort_keys=True, ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def describe_changes(old_tree: Mapping[str, Any], new_tree: Mapping[str, Any]) -> list[str]:
    """Return `path: old -> new` for every difference that makes another experiment; empty where there is none.

    What is searched is not compared: see `space_changes`.
    """
    return _differences(_without_space(_fixed_part(old_tree)), _without_space(_fixed_part(new_tree)), "")


def space_changes(old_tree: Mapping[str, Any], new_tree: Mapping[str, Any]) -> list[str]:
    """Return one line for every difference in what is searched: what was added, what was removed, else `path: old -> new`.

    A run may continue with them where every trial so far keeps all its settings, which takes the trials to tell.
    """
    return _differences(_only_space(old_tree), _only_space(new_tree), "")


def _without_space(tree: Mapping[str, Any]) -> dict[str, Any]:
    found = {key: value for key, value in tree.items() if key not in _SEARCHED}
    if _targets(tree) is not _ABSENT:
        matched = {key: value for key, value in tree["objective"]["matched"].items() if key != "l0"}
        found["objective"] = {**tree["objective"], "matched": matched}
    return found


def _only_space(tree: Mapping[str, Any]) -> dict[str, Any]:
    found = {key: tree.get(key) or {} for key in _SEARCHED}
    return found if _targets(tree) is _ABSENT else {**found, "objective": {"matched": {"l0": _targets(tree)}}}


def _targets(tree: Mapping[str, Any]) -> Any:
    """Return the L0 that trials are matched at, as written."""
    objective = tree.get("objective")
    matched = objective.get("matched") if isinstance(objective, dict) else None
    return matched.get("l0", _ABSENT) if isinstance(matched, dict) else _ABSENT


def _differences(old: Any, new: Any, path: str) -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for key in dict.fromkeys([*old, *new]):
            found += _differences(old.get(key, _ABSENT), new.get(key, _ABSENT), f"{path}.{key}" if path else key)
        return found
    if path.startswith("space.") and _are_ranges(old) and _are_ranges(new) and len(old) == len(new):
        return [change for i in range(len(old)) for change in _differences(old[i], new[i], f"{path}[{i}]")]
    # `1` and `True`, or `64` and `64.0`, compare equal and are written differently.
    if type(old) is type(new) and old == new and repr(old) == repr(new):
        return []
    return [
        _searched_text(path, old, new)
        if path.startswith((*_SEARCHED, _TARGETS))
        else f"{path}: {_text(old)} -> {_text(new)}"
    ]


def _searched_text(path: str, old: Any, new: Any) -> str:
    """Return what has changed at a path of the space."""
    if old is _ABSENT or new is _ABSENT:
        return f"{path}: {'added' if old is _ABSENT else 'removed'}"
    if path.endswith(_LISTED) and isinstance(old, list) and isinstance(new, list):
        parts = [("added", [v for v in new if v not in old]), ("removed", [v for v in old if v not in new])]
        changes = [f"{what} {', '.join(map(show, values))}" for what, values in parts if values]
        return f"{path.removesuffix('.choice')}: {'; '.join(changes) or 'in another order'}"
    return f"{path}: {_text(old)} -> {_text(new)}"


def _are_ranges(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def _text(value: Any) -> str:
    return "absent" if value is _ABSENT else show(value)
