"""The leaderboard's order: finished trials stay ranked, and each one that ends is put among them.

What has ended never changes again, so that a block costs what its own trials cost, however many there have been.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from saesweep.driver.noise import NoiseFloor, bracket_end
from saesweep.driver.ranking import costs, infeasibility
from saesweep.events import Row
from saesweep.experiment import Stream, are_comparable
from saesweep.scheduler import fronts, insert
from saesweep.specs import ObjectiveSpec
from saesweep.status import is_live

_ORDER = {"training": 0, "waiting": 1, "pruned": 2, "failed": 3}


def rank(rows: Sequence[Row], objective: ObjectiveSpec) -> list[Row]:
    """Return the rows of one ranking, best first, as `Standings` puts them."""
    standings = Standings(objective, [row for row in rows if not is_live(row.status)])
    return standings.rows([row for row in rows if is_live(row.status)])


class Standings:
    """One ranking: feasible finished trials, infeasible ones, running ones, then pruned and failed.

    With several goals the rank is that of the non-dominated layer (equal ranks are allowed), ordered inside a layer by
    the goals in their order. With matched L0 the rank is that among the trials of the same target, and targets follow each other.
    With one goal and replicates, ranks that seeds alone could swap are marked as one bracket.

    Args:
        objective: What is optimised.
        ended: Trials that have ended.
    """

    def __init__(self, objective: ObjectiveSpec, ended: Iterable[Row] = ()) -> None:
        self._objective = objective
        self._rows: dict[int, Row] = {}
        self._costs: dict[float, dict[int, tuple[float, ...]]] = {}
        """Those of the trials that have a rank, by target."""
        self._layers: dict[float, list[list[int]]] = {}
        self._unranked: list[tuple[float, float, int]] = []
        """Finished trials without a rank: by how far they miss the limits, cost and number."""
        self._others: list[tuple[int, int, float, int]] = []
        """Pruned and failed trials in the order in which they are shown."""
        # With matched L0 the table of the best at each L0 has the ties.
        has_ties = not objective.is_pareto and objective.matched is None
        self._noise = NoiseFloor(objective.goals[0].metric) if has_ties else None
        self._line: list[float] = []
        """Costs of the trials that have a rank, ascending, where seeds alone may tie them."""
        for row in ended:
            self._take(row)
        self._layers = {target: fronts(pool) for target, pool in sorted(self._costs.items())}

    def add(self, row: Row) -> None:
        """Put a trial that has just ended among the others."""
        target = self._take(row)
        if target is not None:
            if target not in self._layers:
                self._layers = dict(sorted({**self._layers, target: []}.items()))
            insert(self._layers[target], self._costs[target], row.number)

    def rows(self, live: Sequence[Row], limit: int | None = None) -> list[Row]:
        """Return ranked rows, best first.

        Args:
            live: The trials that have not ended.
            limit: Of the ended trials return only so many, from the top; all when left out.
        """
        found = list(self._ranked(limit))
        n_rows = len(self._rows) if limit is None else limit
        for missed, _, number in self._unranked[: max(0, n_rows - len(found))]:
            found.append(self._rows[number].placed(None, on_front=False, feasible=missed == 0))
        others = self._others[: max(0, n_rows - len(found))]
        found += sorted(live, key=self._place)
        return found + [self._rows[number] for *_, number in others]

    def _ranked(self, limit: int | None) -> Iterator[Row]:
        is_pareto, position = self._objective.is_pareto, 0
        floor = None if self._noise is None else self._noise.value
        tied: tuple[int | None, int | None] = (None, None)
        end = 0
        for layers in self._layers.values():
            depth = 1
            for layer in layers:
                for number in layer:
                    if position == limit:
                        return
                    if floor is not None and position == end:
                        end = bracket_end(self._line, position, self._rows[number].replicates, floor)
                        tied = position + 1, end
                    on_front = is_pareto and depth == 1
                    yield self._rows[number].placed(depth, on_front=on_front, feasible=True, tied=tied)
                    position += 1
                depth += 1 if is_pareto else len(layer)

    def _take(self, row: Row) -> float | None:
        """Keep an ended trial; return the target that it is ranked at, None where it has no rank."""
        self._rows[row.number] = row
        if self._noise is not None:
            self._noise.add(row)
        if row.status != "complete":
            insort(self._others, self._place(row))
            return None
        cost, missed, target = costs(row.metrics, self._objective), infeasibility(row.metrics, self._objective), 0.0
        if missed > 0 or any(map(math.isnan, cost)):
            insort(self._unranked, (missed, _first(cost), row.number))
            return None
        if row.target_l0 is not None:
            target = row.target_l0
        self._costs.setdefault(target, {})[row.number] = cost
        if self._noise is not None:
            insort(self._line, cost[0])
        return target

    def _place(self, row: Row) -> tuple[int, int, float, int]:
        seen = -row.tokens if row.status == "pruned" else 0
        return _ORDER[row.status], seen, _first(costs(row.metrics, self._objective)), row.number


def _first(cost: Sequence[float]) -> float:
    return cost[0] if not math.isnan(cost[0]) else math.inf


class Leaderboard:
    """All trials of a run: one ranking, or one for each activation stream where their metrics are on other scales.

    Args:
        objective: What is optimised.
        streams: All activation streams.
        ended: Trials that have ended.
    """

    def __init__(self, objective: ObjectiveSpec, streams: Sequence[Stream], ended: Iterable[Row] = ()) -> None:
        self._is_one = are_comparable(streams)
        labels = [""] if self._is_one else [stream.label for stream in streams]
        by_label: dict[str, list[Row]] = {label: [] for label in labels}
        self._ended: dict[str, Counter[str]] = {}
        self._first_trials: dict[str, int] = {}
        for row in ended:
            by_label[self._label(row)].append(row)
            self._count(row)
        self._standings = {label: Standings(objective, rows) for label, rows in by_label.items()}

    def add(self, row: Row) -> None:
        """Put a trial that has just ended among the others."""
        self._standings[self._label(row)].add(row)
        self._count(row)

    def rows(self, live: Sequence[Row], limit: int | None = None) -> tuple[Row, ...]:
        """Return ranked rows, best first.

        Args:
            live: The trials that have not ended.
            limit: Of the ended trials of a ranking return only so many, from the top; all when left out.
        """
        return tuple(
            row
            for label, own in self._standings.items()
            for row in own.rows([row for row in live if self._label(row) == label], limit)
        )

    def states(self, live: Sequence[Row]) -> Mapping[str, Mapping[str, int]]:
        """Return how many trials each architecture has in each state; the architecture of the first trial comes first."""
        found = {architecture: Counter(states) for architecture, states in self._ended.items()}
        for row in live:
            found.setdefault(row.architecture, Counter())[row.status] += 1
            self._note_first(row)
        return {name: dict(found[name]) for name in sorted(found, key=self._first_trials.__getitem__)}

    def _label(self, row: Row) -> str:
        return "" if self._is_one else row.stream

    def _count(self, row: Row) -> None:
        self._ended.setdefault(row.architecture, Counter())[row.status] += 1
        self._note_first(row)

    def _note_first(self, row: Row) -> None:
        self._first_trials[row.architecture] = min(row.number, self._first_trials.get(row.architecture, row.number))
