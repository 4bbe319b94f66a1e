"""Who is kept at a rung: the order of the values reported there, by non-domination rank.

Stopping ASHA (Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning") with two differences: all trials
that reach a rung in one block report before any is judged, so their order within the block decides nothing; and several
objectives are compared by non-domination rank (MO-ASHA, Schmucker et al. 2021), ties broken by crowding distance.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from functools import partial
from math import inf

Values = tuple[float, ...]


def best_first(pool: Mapping[int, Values]) -> list[int]:
    """Return the trial numbers of a pool, best first; a total order, whatever the order of the mapping.

    Args:
        pool: Finite values to be minimised, one tuple of the same length per trial number.

    Returns:
        Numbers by (non-domination rank, widest crowding distance, number); by (value, number) for one objective.
    """
    if not pool:
        return []
    if len(next(iter(pool.values()))) == 1:
        return sorted(pool, key=lambda number: (pool[number], number))
    order: list[int] = []
    for front in fronts(pool):
        if len(front) <= 2:  # both are ends, infinitely far apart, or copies: the number decides
            order += sorted(front)
            continue
        distance = crowding(pool, front)
        order += sorted(front, key=lambda number: (-distance[number], number))
    return order


def fronts(pool: Mapping[int, Values]) -> list[list[int]]:
    """Sort a pool into fronts: each point is dominated by one of the front before it, and by none of its own.

    Efficient non-dominated sort with binary search (Zhang et al. 2015): in lexicographic order a point can only be
    dominated by points before it, and the fronts that dominate it come before those that do not.
    """
    order = sorted(pool, key=lambda number: (pool[number], number))
    result: list[list[int]] = []
    # With two objectives the last point of a front has its lowest second value so far, and decides alone; with one, all
    # points of a front are equal.
    lasts: list[Values] = []
    for number in order:
        values = pool[number]
        if len(values) <= 2:
            key = values[::-1]
            place = bisect_left(lasts, key)
            lasts[place : place + 1] = [key]
        else:
            place = bisect_left(result, True, key=partial(_none_dominates, pool, values))
        if place == len(result):
            result.append([])
        result[place].append(number)
    return result


def _none_dominates(pool: Mapping[int, Values], values: Values, front: Sequence[int]) -> bool:
    """Return whether no member of a front dominates the values; the latest members are the likeliest to."""
    return not any(dominates(pool[member], values) for member in reversed(front))


def dominates(a: Values, b: Values) -> bool:
    """Return whether `a` is nowhere worse than `b` and somewhere better; lower is better."""
    return a != b and all(x <= y for x, y in zip(a, b, strict=True))


def crowding(pool: Mapping[int, Values], front: Sequence[int]) -> dict[int, float]:
    """Return the crowding distance (NSGA-II) of each member of a front: infinite at the ends of an objective.

    Of members with equal values the lowest number gets the distance and the others 0: copies of one point crowd.
    """
    first = {pool[number]: number for number in sorted(front, reverse=True)}
    distance = {number: 0.0 for number in front}
    for m in range(len(pool[front[0]])):
        line = sorted(first, key=lambda values: (values[m], values))
        width = line[-1][m] - line[0][m]
        distance[first[line[0]]] = distance[first[line[-1]]] = inf
        if width <= 0:
            continue
        for before, here, after in zip(line, line[1:], line[2:], strict=False):
            distance[first[here]] += (after[m] - before[m]) / width
    return distance


def n_kept(n: int, eta: int) -> int:
    """Return how many of `n` reported values a rung keeps: `n // eta`, and at least one."""
    return max(1, n // eta)
