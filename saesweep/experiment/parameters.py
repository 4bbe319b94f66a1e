"""The space as a flat list of parameters, every condition written out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from saesweep.experiment.document import Place
from saesweep.experiment.fields import ARCHITECTURE, READ_ONLY_WITH, TARGET_L0, architectures_with, is_read
from saesweep.specs import ObjectiveSpec, ParameterSpec

Conditions = dict[str, tuple[Any, ...]]


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One range of the space and when it is sampled. A path with several ranges gives several parameters."""

    path: str
    """Dotted path of the base run."""
    spec: ParameterSpec
    """The range as written."""
    when: Conditions
    """Sampled only where each of these paths has one of its values; the implicit conditions are among them."""
    place: Place
    """Where it was written."""

    def is_active(self, params: Mapping[str, Any]) -> bool:
        """Return whether the conditions hold for these values; a path without a value holds none."""
        return all(path in params and params[path] in values for path, values in self.when.items())

    def contains(self, value: Any) -> bool:
        """Return whether a value lies in the range, or is one of the choices."""
        spec = self.spec
        if spec.choice is not None:
            return any(type(v) is type(value) and v == value for v in spec.choice)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        return spec.low <= value <= spec.high and (spec.kind == "float" or isinstance(value, int))


def flatten_space(space: Mapping[str, Sequence[ParameterSpec]], architectures: Sequence[str]) -> tuple[Parameter, ...]:
    """Return the parameters, each after those that its conditions name, otherwise in the order of the file.

    A field that not every architecture in play has is sampled only for those which have it, and a field that is read
    only under some setting (`lr_end`: a cosine schedule) only under it, where that setting is searched too.
    """
    found = []
    for path, ranges in space.items():
        for index, spec in enumerate(ranges):
            when = dict(spec.when)
            having = architectures_with(path, architectures)
            if set(having) != set(architectures):
                when[ARCHITECTURE] = _both(when.get(ARCHITECTURE), having)
            decider, _ = READ_ONLY_WITH.get(path, ("", ()))
            if decider in space and all(r.choice is not None for r in space[decider]):
                searched = [v for r in space[decider] for v in r.choice or () if is_read(path, {decider: v})]
                when[decider] = _both(when.get(decider), tuple(searched))
            place: Place = ("space", path, index) if len(ranges) > 1 else ("space", path)
            found.append(Parameter(path=path, spec=spec, when=when, place=place))
    return _ordered(found)


def target_parameters(objective: ObjectiveSpec | None) -> tuple[Parameter, ...]:
    """Return the choice of a target L0 that `objective.matched` adds to every trial; nothing without it."""
    if objective is None or objective.matched is None:
        return ()
    spec = ParameterSpec(choice=objective.matched.l0)
    return (Parameter(path=TARGET_L0, spec=spec, when={}, place=("objective", "matched", "l0")),)


def _both(stated: tuple[Any, ...] | None, implied: tuple[Any, ...]) -> tuple[Any, ...]:
    return implied if stated is None else tuple(v for v in stated if v in implied)


def _ordered(parameters: list[Parameter]) -> tuple[Parameter, ...]:
    done: list[Parameter] = []
    waiting = list(parameters)
    while waiting:
        names = {p.path for p in waiting}
        ready = [p for p in waiting if not (names - {p.path}).intersection(p.when)]
        ready = ready or waiting  # a circle of conditions, which the checks report
        # One pass takes every parameter whose conditions are settled, so that the order of the file is kept.
        done += ready
        waiting = [p for p in waiting if p not in ready]
    return tuple(done)


def active(parameters: Sequence[Parameter], params: Mapping[str, Any]) -> list[Parameter]:
    """Return the parameters whose conditions hold for these values."""
    return [p for p in parameters if p.is_active(params)]


def for_architecture(parameters: Sequence[Parameter], architecture: str) -> list[Parameter]:
    """Return the parameters that trials of an architecture can have, the architecture itself settled."""
    found = []
    for parameter in parameters:
        if parameter.path == ARCHITECTURE or architecture not in parameter.when.get(ARCHITECTURE, (architecture,)):
            continue
        when = {path: values for path, values in parameter.when.items() if path != ARCHITECTURE}
        found.append(replace(parameter, when=when))
    return found


def grid_points(parameter: Parameter) -> tuple[Any, ...]:
    """Return the values that a grid visits: the choices, or the stated points of a range."""
    return parameter.spec.choice if parameter.spec.choice is not None else parameter.spec.grid or ()


def grid_size(parameters: Sequence[Parameter]) -> int:
    """Return the number of points of the grid, each combination of active parameters counted once."""
    deciders = {path for p in parameters for path in p.when}
    counted = 0
    for setting in settings_of([p for p in parameters if p.path in deciders]):
        free = [p for p in parameters if p.path not in deciders and p.is_active(setting)]
        counted += math.prod(len(grid_points(p)) for p in free)
    return counted


def space_size(parameters: Sequence[Parameter]) -> int | None:
    """Return the number of different trials that a space holds; None where a range is continuous."""
    deciders = {path for p in parameters for path in p.when}
    if any(p.path in deciders and p.spec.n_values() is None for p in parameters):
        return None
    counted = 0
    for setting in settings_of([p for p in parameters if p.path in deciders]):
        free = [p.spec.n_values() for p in parameters if p.path not in deciders and p.is_active(setting)]
        if None in free:
            return None
        counted += math.prod(n for n in free if n is not None)
    return counted


def settings_of(deciders: Sequence[Parameter]) -> list[dict[str, Any]]:
    """Return every combination of the points of these parameters, each after those that its conditions name."""
    settings: list[dict[str, Any]] = [{}]
    for parameter in deciders:
        grown: list[dict[str, Any]] = []
        for setting in settings:
            if parameter.is_active(setting) and parameter.path not in setting:
                grown += [{**setting, parameter.path: value} for value in grid_points(parameter)]
            else:
                grown.append(setting)
        settings = grown
    return settings


def corners(parameters: Sequence[Parameter], limit: int = 512) -> list[dict[str, Any]]:
    """Return settings at the edges of the space: what a static check tries.

    All combinations of extremes where there are at most `limit` of them. Otherwise each parameter's extremes with the
    others at their first and at their last one, which still meets every mistake between two monotone limits.
    """
    total = math.prod(len(p.spec.extremes()) for p in parameters)
    if total <= limit:
        found: list[dict[str, Any]] = [{}]
        for parameter in parameters:
            found = list(
                itertools.chain.from_iterable(
                    [{**s, parameter.path: v} for v in parameter.spec.extremes()]
                    if parameter.is_active(s) and parameter.path not in s
                    else [s]
                    for s in found
                )
            )
        return found
    found = []
    for default in (0, -1):
        for chosen in parameters:
            for value in chosen.spec.extremes():
                found.append(_corner(parameters, chosen, value, default))
    return [setting for i, setting in enumerate(found) if setting not in found[:i]]


def _corner(parameters: Sequence[Parameter], chosen: Parameter, value: Any, default: int) -> dict[str, Any]:
    """Return the setting with one parameter at a value, its conditions met, and the others at an extreme."""
    wanted = {path: values[0] for path, values in chosen.when.items() if values}
    setting: dict[str, Any] = {}
    for parameter in parameters:
        if parameter.path in setting or not parameter.is_active(setting):
            continue
        if parameter is chosen:
            setting[parameter.path] = value
        else:
            setting[parameter.path] = wanted.get(parameter.path, parameter.spec.extremes()[default])
    return setting
