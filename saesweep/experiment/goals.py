"""The objective in other words (W&B, Optuna, British spelling, one value where a mapping belongs): the line to write instead.

As elsewhere, what was meant takes the place of what was written, so that nothing else is reported of it.
"""

from __future__ import annotations

import re
from typing import Any

from saesweep.experiment.document import Document, Place, flow
from saesweep.experiment.scalars import parse_scalar
from saesweep.specs import METRICS

_DIRECTIONS = ("minimize", "maximize")
_GOAL = re.compile(r"(min|max)(?:imi[sz]e)?[\s:(]+(\w+)\)?")
_LIMIT = re.compile(r"\s*(\w*)\s*(<=|<|>=|>)\s*([-+0-9.e]+)\s*")


def teach_objective(document: Document) -> None:
    """Note an objective that is written as another tool or another reader would."""
    _teach_text(document)
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
    _teach_several(document)
    _teach_limits(document)


def _teach_text(document: Document) -> None:
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


def _teach_several(document: Document) -> None:
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


def _teach_limits(document: Document) -> None:
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
    value = None if match is None else parse_scalar(match[3])
    if match is None or not isinstance(value, (int, float)):
        return "", None
    return match[1], {"max" if match[2][0] == "<" else "min": value}
