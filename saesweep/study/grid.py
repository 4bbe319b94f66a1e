"""Which points a grid still has to visit, and how many trials a stratum can have.

The points come from the space and what is left from the trials so far, so that a restart goes on where the study stands;
Optuna's own grid sampler fails when trials are asked ahead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from saesweep.space import Space, all_points, grid_points, has_settings


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
