"""Domination of tuples of costs, all to be minimised: for rungs, rankings and fronts alike."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice

Values = tuple[float, ...]


def fronts(pool: Mapping[int, Values]) -> list[list[int]]:
    """Sort a pool into fronts: each point is dominated by one of the front before it, and by none of its own.

    Efficient non-dominated sort with binary search (Zhang et al. 2015): in lexicographic order a point can only be
    dominated by points before it, and the fronts that dominate it come before those that do not. Each front is in that order.
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


def insert(layers: list[list[int]], pool: Mapping[int, Values], number: int) -> None:
    """Put one more point of a pool into its fronts, in place: the same fronts as sorting the whole pool anew.

    A point pushes those of its front that it dominates into the next one, where they do the same, and so on. Where that is
    a whole front, all later ones keep their members.
    """

    def in_order(member: int) -> tuple[Values, int]:
        return pool[member], member

    place = bisect_left(layers, True, key=partial(_none_dominates, pool, pool[number]))
    moving = [number]
    while moving and place < len(layers):
        pushed = {member for one in moving for member in _dominated(pool, pool[one], layers[place])}
        if len(pushed) == len(layers[place]):
            break
        kept = [member for member in layers[place] if member not in pushed]
        for one in moving:
            insort(kept, one, key=in_order)
        moving = [member for member in layers[place] if member in pushed]
        layers[place] = kept
        place += 1
    if moving:
        layers.insert(place, moving)


def _none_dominates(pool: Mapping[int, Values], values: Values, front: Sequence[int]) -> bool:
    """Return whether no member of a front dominates the values.

    With two objectives the second one falls along a front, so that the last member before the values decides alone; of
    more, the latest members are the likeliest to.
    """
    if len(values) <= 2:
        place = bisect_right(front, values, key=pool.__getitem__)
        return place == 0 or not dominates(pool[front[place - 1]], values)
    return not any(dominates(pool[member], values) for member in reversed(front))


def _dominated(pool: Mapping[int, Values], values: Values, front: Sequence[int]) -> Iterator[int]:
    """Return the members of a front that the values dominate: with two objectives they follow each other."""
    start = bisect_left(front, values, key=pool.__getitem__) if len(values) <= 2 else 0
    for member in islice(front, start, None):
        if dominates(values, pool[member]):
            yield member
        elif len(values) <= 2 and pool[member] != values:
            return


def dominates(a: Values, b: Values) -> bool:
    """Return whether `a` is nowhere worse than `b` and somewhere better; lower is better."""
    return a != b and all(x <= y for x, y in zip(a, b, strict=True))
