"""The points of a space: how many there are, those that a grid visits, and those at its edges."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from saesweep.space.space import Parameter, Space, has_settings
from saesweep.specs import ParameterSpec

MAX_LISTED = 10_000
"""Points of a space that is listed."""

ValuesOf = Callable[[ParameterSpec], Sequence[Any]]
"""Which values of a range are visited."""


def points(
    parameters: Sequence[Parameter], values_of: ValuesOf, settings: Mapping[str, Any] | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the points by path; the first parameter varies slowest.

    Args:
        parameters: Each after those that its conditions name.
        values_of: Which values of each range are visited.
        settings: Parameters that have one value; a point in which one of them is not active is left out.
    """
    return _extended(tuple(parameters), values_of, settings or {}, {})


def _extended(
    left: tuple[Parameter, ...], values_of: ValuesOf, settings: Mapping[str, Any], chosen: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Yield every completion of the values chosen so far."""
    for index, parameter in enumerate(left):
        path = parameter.path
        if path in chosen or not parameter.is_active(chosen):
            continue
        for value in (settings[path],) if path in settings else values_of(parameter.spec):
            yield from _extended(left[index + 1 :], values_of, settings, {**chosen, path: value})
        return
    if all(path in chosen for path in settings):  # a setting that is not active here belongs to another branch
        yield chosen


def grid_points(parameters: Sequence[Parameter], settings: Mapping[str, Any] | None = None) -> Iterator[dict[str, Any]]:
    """Yield the points of the grid; parameters in `settings` have that one value."""
    return points(parameters, ParameterSpec.points, settings)


def all_points(
    parameters: Sequence[Parameter], settings: Mapping[str, Any], limit: int = MAX_LISTED
) -> list[dict[str, Any]] | None:
    """Return every point with these settings; None where they are more than `limit`, or infinitely many."""
    try:
        found = list(itertools.islice(points(parameters, _listed, settings), limit + 1))
    except _TooManyValues:
        return None
    return found if len(found) <= limit else None


class _TooManyValues(Exception):
    """A parameter has infinitely many values, or more than are listed."""


def _listed(spec: ParameterSpec) -> Sequence[Any]:
    n_values = spec.n_values()
    if n_values is None or n_values > MAX_LISTED:
        raise _TooManyValues
    return spec.values()


def grid_size(parameters: Sequence[Parameter]) -> int:
    """Return the number of points of the grid, each combination of active parameters counted once."""
    return _count(parameters, ParameterSpec.points, lambda spec: len(spec.points())) or 0


def space_size(parameters: Sequence[Parameter]) -> int | None:
    """Return the number of different trials that a space holds; None where a range is continuous.

    It is None as well where conditions depend on a range of more values than are listed.
    """
    return _count(parameters, _listed, ParameterSpec.n_values)


def _count(
    parameters: Sequence[Parameter], values_of: ValuesOf, n_values: Callable[[ParameterSpec], int | None]
) -> int | None:
    """Count points without listing the parameters on which no condition depends; None where they are infinitely many."""
    deciders = {path for p in parameters for path in p.when}
    counted = 0
    try:
        for setting in points([p for p in parameters if p.path in deciders], values_of):
            free = [n_values(p.spec) for p in parameters if p.path not in deciders and p.is_active(setting)]
            if None in free:
                return None
            counted += math.prod(n for n in free if n is not None)
    except _TooManyValues:
        return None
    return counted


def corners(parameters: Sequence[Parameter], limit: int = 512) -> list[dict[str, Any]]:
    """Return settings at the edges of the space: what a static check tries.

    All combinations of extremes where there are at most `limit` of them. Otherwise each parameter's extremes with the
    others at their first and at their last one, which still meets every mistake between two monotone limits.
    """
    if math.prod(len(p.spec.extremes()) for p in parameters) <= limit:
        return list(points(parameters, ParameterSpec.extremes))
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


# Optuna's own grid sampler fails when trials are asked ahead. What is left comes from the trials so far, so that a restart
# continues where the study stands.
def next_point(space: Space, seen: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the first point with these settings that no trial has; None when there is none left."""
    return next((point for point in grid_points(space.parameters, settings) if point not in seen), None)


def trial_limit(
    space: Space, sampler: str, baselines: Sequence[Mapping[str, Any]], stratum: Mapping[str, Any] | None = None
) -> int | None:
    """Return how many trials a stratum can have; None where it has a continuous range, or more points than are listed.

    That is each point of a finite space once; with a grid its points, and baselines beside them.
    """
    settings = dict(stratum or {})
    if sampler == "fixed":
        return None
    if sampler != "grid":
        every = all_points(space.parameters, settings)
        return None if every is None else len(every)
    points: list[dict[str, Any]] = []
    for baseline in baselines:
        both = {**baseline, **settings}
        point = next_point(space, points, both) if has_settings(both, baseline) else None
        points += [point] if point is not None else []
    points += [point for point in grid_points(space.parameters, settings) if point not in points]
    return len(points)
