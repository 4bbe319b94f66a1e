"""What of the trials counts as a rival: the reports of the live ones as columns, and the best finished ones of each group.

Both change with each trial by itself, so that a decision of a driver with many workers does not look through all trials.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass

import numpy as np

from saesweep.forecast import Column, Forecasts, Report, column_of, to_scale
from saesweep.scheduler.aim import Aim
from saesweep.scheduler.contender import EVERYWHERE, Array, Numbers, Pack
from saesweep.scheduler.dominance import Values, dominates
from saesweep.scheduler.trial import TrialState

Kind = tuple[str, str]
"""Scope and kind of trials that are forecast together."""


@dataclass(frozen=True)
class Section:
    """What live trials of one kind whose latest report is of the same rung have reported there or at an earlier one."""

    numbers: Numbers
    """[n] Ascending."""
    groups: Numbers
    """[n] Numbers of their groups."""
    first_rungs: Numbers
    """[n] Where each may be judged from on."""
    near: Array
    """[n, 2] Bounds of the L0 near the target, on the scale."""
    costs: Array
    """[n, c] What a report counts (see `Aim.costs`)."""
    columns: tuple[Column, ...]
    """By metric, in the order of the aim's."""

    def changed(self, removed: Iterable[int], added: Section | None) -> Section:
        """Return the section without some trials and with others."""
        order = np.delete(np.arange(len(self.numbers)), np.searchsorted(self.numbers, list(removed)))
        if added is None:
            return Section._of([own.take(order, axis=0) for own in self._arrays])
        places = np.searchsorted(self.numbers[order], added.numbers)
        order = np.insert(order, places, len(self.numbers) + np.arange(len(added.numbers)))
        pairs = zip(self._arrays, added._arrays, strict=True)
        return Section._of([np.concatenate(pair).take(order, axis=0) for pair in pairs])

    @property
    def _arrays(self) -> list[Array]:
        own: list[Array] = [self.numbers, self.groups, self.first_rungs, self.near, self.costs]  # type: ignore[list-item]
        return own + [array for column in self.columns for array in column.arrays]

    @classmethod
    def _of(cls, arrays: Sequence[Array]) -> Section:
        numbers, groups, first_rungs, near, costs, *rest = arrays
        columns = tuple(Column(*rest[start : start + 3]) for start in range(0, len(rest), 3))
        return cls(numbers, groups, first_rungs, near, costs, columns)  # type: ignore[arg-type]


class Rivals:
    """The rivals of one state; never altered once they are part of one.

    Args:
        aim: The goals and limits.
        end_rung: Index of the end among a trial's stops.
    """

    def __init__(self, aim: Aim, end_rung: int) -> None:
        self.aim, self.end_rung = aim, end_rung
        self.sections: dict[Kind, dict[tuple[int, int], Section]] = {}
        """By kind; then by latest rung, and rung reported at. None is empty."""
        self.groups: dict[str, int] = {}
        """Numbers of the groups that have reported."""
        self._fronts: dict[str, tuple[tuple[Values, int], ...]] = {}
        """By group, the feasible finished trials that no other one dominates: whoever beats a trial, one of them does."""
        self._finished: dict[int, TrialState] = {}
        """The trials of the fronts."""
        self._packs: dict[str, Pack] = {}
        """The fronts as contenders, where they have been asked for."""

    def changed(self, changes: Iterable[tuple[TrialState | None, TrialState]]) -> Rivals:
        """Return the rivals after changes of trials, each as it was (None where it is new) and as it is."""
        removed: dict[tuple[Kind, int, int], list[int]] = {}
        added: dict[tuple[Kind, int, int], list[TrialState]] = {}
        finished: list[TrialState] = []
        for before, after in changes:
            had, has = _reports(before), _reports(after)
            if had is not has and had != has:
                for place in _places(before, had):
                    removed.setdefault(place, []).append(after.number)
                for place in _places(after, has):
                    added.setdefault(place, []).append(after)
            if after.status == "complete" and is_feasible(after, self.aim, self.end_rung):
                finished.append(after)
        if not (removed or added or finished):
            return self
        found = copy(self)
        found.groups = dict(self.groups)
        found.sections = {kind: dict(own) for kind, own in self.sections.items()}
        for kind, latest, rung in dict.fromkeys([*removed, *added]):
            place = (kind, latest, rung)
            found._change(kind, (latest, rung), removed.get(place, ()), added.get(place, ()))
        found._fronts, found._finished, found._packs = dict(self._fronts), dict(self._finished), dict(self._packs)
        for trial in finished:
            found._finish(trial)
        return found

    def _change(self, kind: Kind, place: tuple[int, int], removed: Iterable[int], added: Sequence[TrialState]) -> None:
        sections = self.sections.setdefault(kind, {})
        new = self._section(sorted(added, key=lambda trial: trial.number), place[1]) if added else None
        old = sections.get(place)
        changed = new if old is None else old.changed(removed, new)
        assert changed is not None
        if len(changed.numbers):
            sections[place] = changed
        else:
            del sections[place]
        if not sections:
            del self.sections[kind]

    def _section(self, trials: Sequence[TrialState], rung: int) -> Section:
        for trial in trials:
            self.groups.setdefault(trial.group, len(self.groups))
        return Section(
            np.array([trial.number for trial in trials]),
            np.array([self.groups[trial.group] for trial in trials]),
            np.array([trial.course.first_rung for trial in trials]),
            np.array([_near(trial, self.aim) for trial in trials]),
            np.array([self.aim.costs(trial.reports[rung], trial.course.target_l0) for trial in trials]),
            tuple(column_of([report_of(trial, self.aim, m, rung) for trial in trials]) for m in self.aim.metrics),
        )

    def _finish(self, trial: TrialState) -> None:
        """Put a feasible finished trial into the front of its group."""
        values = dict(zip(self.aim.metrics, trial.reports[self.end_rung], strict=True))
        own_costs = tuple(goal.sign * to_scale(goal.metric, values[goal.metric]) for goal in self.aim.goals)
        front = [entry for entry in self._fronts.get(trial.group, ()) if entry[1] != trial.number]
        if any(dominates(costs, own_costs) for costs, _ in front):
            return
        kept = [entry for entry in front if not dominates(own_costs, entry[0])]
        for _, number in set(front).difference(kept):
            del self._finished[number]
        insort(kept, (own_costs, trial.number))
        self._fronts[trial.group], self._finished[trial.number] = tuple(kept), trial
        self._packs.pop(trial.group, None)

    def has_finished(self, group: str) -> bool:
        """Return whether a trial of a group has finished within the limits."""
        return group in self._fronts

    def finished(self, group: str) -> Pack | None:
        """Return the finished rivals of a group, in the order of their costs; None without one."""
        if group not in self._fronts:
            return None
        if group not in self._packs:
            trials = [self._finished[number] for _, number in self._fronts[group]]
            named = zip(
                self.aim.metrics, zip(*(trial.reports[self.end_rung] for trial in trials), strict=True), strict=True
            )
            self._packs[group] = Pack(
                self.aim,
                np.array([trial.number for trial in trials]),
                {
                    m: Forecasts(m, np.array([to_scale(m, value) for value in values]), np.zeros(len(trials)))
                    for m, values in named
                },
                np.array([_near(trial, self.aim) for trial in trials]),
                is_finished=True,
            )
        return self._packs[group]


def _reports(trial: TrialState | None) -> Mapping[int, tuple[float, ...]]:
    """Return what a live trial has reported."""
    return trial.reports if trial is not None and trial.live else {}


def _places(trial: TrialState | None, reports: Mapping[int, object]) -> list[tuple[Kind, int, int]]:
    """Return the sections that a trial is in, by its reports."""
    if trial is None or not reports:
        return []
    kind, latest = kind_of(trial), max(reports)
    return [(kind, latest, rung) for rung in reports]


def kind_of(trial: TrialState) -> Kind:
    """Return whom a trial is forecast with."""
    return trial.course.scope, trial.course.kind


def _near(trial: TrialState, aim: Aim) -> tuple[float, float]:
    """Return the bounds near the L0 that a trial aims at, on the scale."""
    return next((limit.scaled() for limit in aim.near(trial.course.target_l0)), EVERYWHERE)


def is_feasible(trial: TrialState, aim: Aim, end_rung: int) -> bool:
    """Return whether a trial has finished within the limits and, with matched L0, near its target; a dead SAE never has."""
    if trial.status != "complete" or end_rung not in trial.reports:
        return False
    values = dict(zip(aim.metrics, trial.reports[end_rung], strict=True))
    bounds = (*aim.limits, *aim.near(trial.course.target_l0))
    return values["l0"] > 0 and all(limit.keeps(values[limit.metric]) for limit in bounds)


def report_of(trial: TrialState, aim: Aim, metric: str, rung: int) -> Report:
    """Return what was measured of one metric at a rung."""
    values = dict(zip(aim.metrics, trial.reports[rung], strict=True))
    return Report(trial.course, metric, rung, values[metric], values["l0"])
