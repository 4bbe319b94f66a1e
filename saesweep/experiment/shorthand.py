"""One value where a mapping or a list belongs, a list where one value does, and the objective in other words: the line to write.

As with the words of other tools, what was meant takes the place of what was written, so that nothing else is reported of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, get_args

from saesweep.experiment.document import Document, Place, flow
from saesweep.experiment.fields import known_paths
from saesweep.experiment.yaml_text import scalar_or_text
from saesweep.specs import METRICS, BaseRun
from saesweep.specs.architectures import architectures, spec_class

_SPAN = re.compile(r"\s*([-+0-9.e]+?)\s*(?:\.\.\.?|-|–|to|:|,)\s*([-+0-9.e]+)\s*")
_CUDA = "cuda:{}"


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return type(value) is int and value > 0


_ALONE: tuple[tuple[Place, str, Callable[[Any], bool]], ...] = (
    (("search",), "trials", _is_count),
    (("search", "confirm"), "top", _is_count),
    (("cohort",), "size", lambda value: _is_count(value) or value == "auto"),
    (("base", "sae"), "architecture", _is_text),
    (("base", "logger"), "wandb_project", _is_text),
    (("objective", "matched"), "l0", lambda value: isinstance(value, (int, float, list)) and value is not True),
)
"""Where a mapping belongs, the key that a single value there is meant for, and which values are."""
_LISTS: tuple[Place, ...] = (
    ("search", "baselines"),
    ("search", "fixed"),
    ("search", "rungs"),
    ("objective", "matched", "l0"),
)


def correct_shorthand(document: Document) -> None:
    """Note values of the wrong shape whose meaning is plain, and put what was meant in their place."""
    if _node(document, "search").get("confirm") is True:
        _meant(document, ("search", "confirm"), {"top": 3})
    for place, key, is_meant in _ALONE:
        parent = _node(document, *map(str, place[:-1]))
        value = parent.get(str(place[-1]))
        if value is not None and not isinstance(value, dict) and is_meant(value):
            value = [value] if key == "l0" and not isinstance(value, list) else value
            _meant(document, place, {"log_to_wandb": True} if value == "wandb" else {key: value})
    for path, entry in _node(document, "space").items():
        for index, one in enumerate(entry if isinstance(entry, list) else [entry]):
            if isinstance(one, dict):
                _correct_range(document, ("space", path, index) if isinstance(entry, list) else ("space", path), one)
    for place in _LISTS:
        value = _node(document, *map(str, place[:-1])).get(str(place[-1]))
        if value is not None and not isinstance(value, list):
            _meant(document, place, [value])
    devices = _node(document, "cohort").get("devices")
    if isinstance(devices, list) and devices and all(type(one) is int for one in devices):
        _meant(document, ("cohort", "devices"), [_CUDA.format(one) for one in devices])
    _correct_several_values(document)


def span(text: str) -> list[Any] | None:
    """Return the bounds of a range that is written in one piece, such as `8-64` or `8..64`."""
    match = _SPAN.fullmatch(text)
    bounds = [] if match is None else [scalar_or_text(part) for part in match.groups()]
    return bounds if bounds and all(isinstance(b, (int, float)) for b in bounds) else None


def _correct_range(document: Document, place: Place, entry: dict[str, Any]) -> None:
    for key in ("float", "int"):
        if isinstance(entry.get(key), str) and (bounds := span(entry[key])) is not None:
            _meant(document, (*place, key), bounds, entry)
    for key in ("choice", "grid"):
        if key in entry and entry[key] is not None and not isinstance(entry[key], (list, dict)):
            _meant(document, (*place, key), [entry[key]], entry)


def _correct_several_values(document: Document) -> None:
    """Several values of a field of the base run are searched."""
    for where in ((), ("sae",)):
        base = _node(document, "base", *where)
        for name, values in list(base.items()):
            path = ".".join((*where, name))
            is_plain = isinstance(values, list) and values and not any(isinstance(v, (list, dict)) for v in values)
            if is_plain and path in known_paths() and not _is_list(path):
                message = f"takes one value; to try each, write under space: {path}: {flow({'choice': values})}"
                document.add(("base", *where, name), message)
                base[name] = values[0]


def _is_list(path: str) -> bool:
    """Return whether one value of a field is a list."""
    section, _, name = path.rpartition(".")
    models: list[type[Any]] = [BaseRun] if not section else [spec_class(known) for known in architectures()]
    fields = [model.model_fields[name] for model in models if name in model.model_fields]
    kinds = [kind for field in fields for kind in (field.annotation, *get_args(field.annotation))]
    return any("tuple" in str(kind) or "list" in str(kind) for kind in kinds)


def _node(document: Document, *place: str) -> dict[str, Any]:
    """Return the mapping at a place, to be changed there; an empty one where there is none."""
    node: Any = document.tree
    for part in place:
        node = node.get(part) if isinstance(node, dict) else None
    return node if isinstance(node, dict) else {}


def _meant(document: Document, place: Place, meant: Any, entry: dict[str, Any] | None = None) -> None:
    document.add(place, f"write {place[-1]}: {flow(meant)}")
    (_node(document, *map(str, place[:-1])) if entry is None else entry)[str(place[-1])] = meant


_DIRECTIONS = ("minimize", "maximize")
_GOAL = re.compile(r"(min|max)(?:imi[sz]e)?[\s:(]+(\w+)\)?")
_LIMIT = re.compile(r"\s*(\w*)\s*(<=|<|>=|>)\s*([-+0-9.e]+)\s*")


def correct_objective(document: Document) -> None:
    """Note an objective that is written as another tool or another reader would."""
    _correct_text(document)
    objective = document.tree.get("objective")
    if not isinstance(objective, dict):
        return
    for british in ("minimise", "maximise"):
        if british in objective:
            ours = british.replace("ise", "ize")
            document.add(("objective", british), f"write {ours}: {flow(objective[british])}", at_key=True)
            meant = objective.pop(british)
            if not {*_DIRECTIONS, "pareto"}.intersection(objective):
                objective[ours] = meant
    name = objective.get("metric", objective.get("name"))
    if isinstance(name, dict):
        objective, name = {**objective, **name}, name.get("name")
    if isinstance(name, str) and name in METRICS and not {*_DIRECTIONS, "pareto"}.intersection(objective):
        direction = str(objective.get("direction", objective.get("goal", METRICS[name].better)))
        direction = direction if direction in _DIRECTIONS else METRICS[name].better
        document.add(("objective",), f"write objective: {flow({direction: name})}")
        document.tree["objective"] = {direction: name}
    pareto = objective.get("pareto")
    if isinstance(pareto, dict) and set(pareto) == set(_DIRECTIONS):
        pareto = objective["pareto"] = [{direction: pareto[direction]} for direction in _DIRECTIONS]
        document.add(("objective", "pareto"), f"write pareto: {flow(pareto)}")
    goals: list[Any] = pareto if isinstance(pareto, list) else []
    for index, goal in enumerate(goals):
        if isinstance(goal, str) and goal in METRICS:
            goals[index] = {METRICS[goal].better: goal}
            document.add(("objective", "pareto", index), f"needs its direction; write {flow(goals[index])}")
    _correct_several_goals(document)
    _correct_limits(document)


def _correct_text(document: Document) -> None:
    """Note a metric alone, `minimize delta_ce` in one piece, and a list of goals."""
    objective = document.tree.get("objective")
    if isinstance(objective, str) and objective in METRICS:
        meant: dict[str, Any] = {METRICS[objective].better: objective}
        document.add(("objective",), f"names a metric without a direction; write objective: {flow(meant)}")
        document.tree["objective"] = meant
    elif isinstance(objective, str) and (match := _GOAL.fullmatch(objective.strip())) and match[2] in METRICS:
        meant = {f"{match[1]}imize": match[2]}
        document.add(("objective",), f"write objective: {flow(meant)}")
        document.tree["objective"] = meant
    elif isinstance(objective, list) and len(objective) > 1 and all(isinstance(goal, dict) for goal in objective):
        document.add(("objective",), f"several goals make a front; write objective: {flow({'pareto': objective})}")
        document.tree["objective"] = {"pareto": objective}


def _correct_several_goals(document: Document) -> None:
    """Note two goals beside each other: they make a front."""
    objective = document.tree["objective"]
    goals = []
    for direction in _DIRECTIONS:
        stated = objective.get(direction)
        names = stated if isinstance(stated, list) else [stated]
        goals += [{direction: name} for name in names if isinstance(name, str)]
    if len(goals) < 2 or "pareto" in objective:
        return
    document.add(("objective",), f"several goals make a front; write pareto: {flow(goals)}")
    rest = {key: value for key, value in objective.items() if key not in _DIRECTIONS}
    document.tree["objective"] = {"pareto": goals, **rest}


def _correct_limits(document: Document) -> None:
    """Note limits that are written as comparisons or single values."""
    place: Place = ("objective", "subject_to")
    objective = document.tree["objective"]
    limits = objective.get("subject_to")
    stated = [limits] if isinstance(limits, str) else limits
    if isinstance(stated, list) and all(isinstance(one, str) for one in stated):
        found = {name: limit for name, limit in map(_limit, stated) if limit is not None}
        if found and len(found) == len(stated) and "" not in found:
            document.add(place, f"write subject_to: {flow(found)}")
            limits = objective["subject_to"] = found
    for name, value in list(limits.items()) if isinstance(limits, dict) else ():
        if name not in METRICS or isinstance(value, bool):
            continue
        meant = None
        if isinstance(value, (int, float)):
            meant = {"max" if METRICS[name].better == "minimize" else "min": value}
        elif isinstance(value, str):
            meant = _limit(value)[1]
        elif isinstance(value, dict) and value and all(op in ("<", "<=", ">", ">=") for op in value):
            meant = {"max" if op[0] == "<" else "min": bound for op, bound in value.items()}
        if meant is not None:
            document.add((*place, name), f"write {name}: {flow(meant)}")
            limits[name] = meant


def _limit(text: str) -> tuple[str, dict[str, Any] | None]:
    """Return (metric, limit) of `l0 <= 64`; no limit for a text that is none."""
    match = _LIMIT.fullmatch(text)
    value = None if match is None else scalar_or_text(match[3])
    if match is None or not isinstance(value, (int, float)):
        return "", None
    return match[1], {"max" if match[2][0] == "<" else "min": value}
