"""The points of a grid, and of a space with finitely many, in a fixed order.

Optuna's own grid sampler fails when trials are asked ahead.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from saesweep.errors import UserError
from saesweep.study.parameter_view import ParameterView
from saesweep.study.space_view import SpaceView

MAX_LISTED = 10_000
"""Points of a space that is listed."""


def check_grid(space: SpaceView) -> None:
    """Check that every range says which points to visit.

    Raises:
        UserError: When a float or int range has no `grid`.
    """
    for parameter in space.parameters:
        if not parameter.points:
            raise UserError(
                f"space.{parameter.path}: `search.sampler: grid` needs the points to visit, as `grid: [...]`"
            )
        outside = [value for value in parameter.points if not parameter.contains(value)]
        if outside:
            raise UserError(f"space.{parameter.path}: grid points {outside} lie outside {parameter.range_text}")


def grid_points(space: SpaceView, settings: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the points by path; parameters in `settings` have that one value, the first parameter varies slowest."""
    return _extend(space, {}, settings, lambda parameter: parameter.points or ())


def all_points(space: SpaceView, settings: Mapping[str, Any], limit: int) -> list[dict[str, Any]] | None:
    """Return every point of the space with these settings; None where they are more than `limit`, or infinitely many."""
    try:
        found = list(itertools.islice(_extend(space, {}, settings, _every_value), limit + 1))
    except _ContinuousRange:
        return None
    return found if len(found) <= limit else None


class _ContinuousRange(Exception):
    """A parameter has infinitely many values."""


def _every_value(parameter: ParameterView) -> Sequence[Any]:
    if parameter.values is None:
        raise _ContinuousRange
    return parameter.values


def next_point(
    space: SpaceView, seen: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Return the first point with these settings that no trial has; None when there is none left."""
    return next((point for point in grid_points(space, settings) if point not in seen), None)


def trial_limit(
    space: SpaceView, sampler: str, baselines: Sequence[Mapping[str, Any]], stratum: Mapping[str, Any] | None = None
) -> int | None:
    """Return how many trials a stratum can have; None where it has a continuous range, or more points than are listed.

    That is each point of a finite space once; with a grid its points, and baselines beside them.
    """
    settings = dict(stratum or {})
    if sampler == "fixed":
        return None
    if sampler != "grid":
        every = all_points(space, settings, MAX_LISTED)
        return None if every is None else len(every)
    points: list[dict[str, Any]] = []
    for baseline in baselines:
        both = {**baseline, **settings}
        point = next_point(space, points, both) if space.has_settings(both, baseline) else None
        points += [point] if point is not None else []
    points += [point for point in grid_points(space, settings) if point not in points]
    return len(points)


def _extend(
    space: SpaceView,
    chosen: dict[str, Any],
    settings: Mapping[str, Any],
    values_of: Callable[[ParameterView], Sequence[Any]],
) -> Iterator[dict[str, Any]]:
    """Yield every completion of the values chosen so far."""
    params = dict(chosen)
    for parameter in space.walk(params):
        if parameter.path in params:
            continue
        given = settings.get(parameter.path)
        values = values_of(parameter) if parameter.path not in settings else (given,)
        for value in values:
            yield from _extend(space, {**chosen, parameter.path: value}, settings, values_of)
        return
    # A setting that is not active here belongs to another branch.
    if all(path in params for path in settings):
        yield params
