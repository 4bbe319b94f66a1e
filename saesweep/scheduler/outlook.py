"""With which probability a trial ends among what the objective keeps.

Every trial that has been measured has a forecast of each goal and each limited metric at its end; a finished one has the
values themselves. A trial is kept by the objective when it is feasible and no rival is better: has a better value (one
goal), dominates it (several), or has a better value at the same target L0 (matched).

The probability is that of being within the limits, times that of standing up to the strongest rival. The others together
can only lower it: but their errors have causes in common, which no product of probabilities knows, and measured on the
bench of curves that product prunes winners.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from saesweep.forecast import (
    Ahead,
    Column,
    Forecast,
    Forecasts,
    Noise,
    Table,
    forecast_column,
    noises_of,
    tie_threshold,
)
from saesweep.scheduler.contender import Array, Contender, Pack
from saesweep.scheduler.rivals import Kind, Section, kind_of
from saesweep.scheduler.state import State

_NEVER = 1e-17
"""A probability that changes nothing where it is taken from 1."""
_ROUNDING = 1e-8
"""What a probability from columns differs from that of `probability_better` at most, with room to spare."""


@dataclass(frozen=True)
class Outlook:
    """What is to be expected of a live trial."""

    contender: Contender
    probability: float
    """Of ending among what the objective keeps."""
    rival: Contender | None
    """The trial that is most probably better; None without one."""


class Field:
    """All contenders of one state: every live trial that has been measured, and the finished ones that are rivals.

    Each is found when it is first asked for. A live one is forecast from its latest report, together with the others of its
    kind: what those that are further ahead have done since an earlier rung helps to forecast the trials there.

    Args:
        state: The sweep.
        table: The prior of the forecasts.
    """

    def __init__(self, state: State, table: Table) -> None:
        self._state, self._table = state, table
        self._aim, self._rivals = state.policy.aim, state.rivals
        self._kinds: dict[Kind, dict[int, Pack]] = {}
        self._groups: dict[str, list[Pack]] = {}
        self._contenders: dict[int, Contender] = {}

    def contender(self, number: int) -> Contender:
        """Return a live trial that has been measured."""
        if number not in self._contenders:
            trial = self._state.trials[number]
            pack = self.of_kind(kind_of(trial))[max(trial.reports)]
            row = pack.row_of(number)
            assert row is not None
            self._contenders[number] = pack[row]
        return self._contenders[number]

    def hopeless(self, numbers: Sequence[int], min_probability: float) -> list[Outlook]:
        """Return the outlooks of those trials that are less likely than that to end among what the objective keeps."""
        by_group: dict[str, list[Contender]] = {}
        for number in numbers:
            by_group.setdefault(self._state.trials[number].group, []).append(self.contender(number))
        found = []
        for group, own in by_group.items():
            chances = self._chances(own, group)
            beaten = np.max([about.max(axis=1) for about in chances], axis=0)
            for place, one in enumerate(own):
                if one.feasible * (1.0 - beaten[place]) < min_probability + _ROUNDING:
                    found.append(self._outlook(one, group, [about[place] for about in chances]))
        return [outlook for outlook in found if outlook.probability < min_probability]

    def outlook(self, number: int) -> Outlook:
        """Return what is to be expected of a live trial that has been measured, among its rivals."""
        own, group = self.contender(number), self._state.trials[number].group
        return self._outlook(own, group, [about[0] for about in self._chances([own], group)])

    def _chances(self, own: Sequence[Contender], group: str) -> list[Array]:
        """Return by pack of a group [own, n] about the probability of each rival to beat its trials; 0 of beating themselves."""
        found = []
        for pack in self.in_group(group):
            about = pack.approx_probability_beats(own)
            for place, one in enumerate(own):
                if not pack.is_finished and (row := pack.row_of(one.number)) is not None:
                    about[place, row] = 0.0
            found.append(about)
        return found

    def _outlook(self, own: Contender, group: str, chances: Sequence[Array]) -> Outlook:
        """Return the outlook of a trial from the rivals that may be the strongest: about the likeliest to beat it."""
        stands, strongest = 1.0, None
        threshold = max(_NEVER, tie_threshold(max(float(about.max()) for about in chances)))
        for pack, about in zip(self.in_group(group), chances, strict=True):
            for row in np.flatnonzero(about >= threshold):
                other = pack[int(row)]
                against_this_one = 1.0 - other.beats(own, self._aim)
                if against_this_one < stands:
                    stands, strongest = against_this_one, other
                if stands == 0.0:
                    return Outlook(own, 0.0, strongest)
        return Outlook(own, own.feasible * stands, strongest)

    def of_kind(self, kind: Kind) -> Mapping[int, Pack]:
        """Return the live contenders of a kind by their latest rung, those that are furthest ahead first."""
        if kind not in self._kinds:
            found: dict[int, Pack] = {}
            for rung in sorted({latest for latest, _ in self._rivals.sections[kind]}, reverse=True):
                found[rung] = self._forecast(self._rivals.sections[kind], rung, found)
            self._kinds[kind] = found
        return self._kinds[kind]

    def _forecast(self, sections: Mapping[tuple[int, int], Section], rung: int, further: Mapping[int, Pack]) -> Pack:
        """Return the contenders of a kind whose latest rung is this one, given those that have come further."""
        here = sections[rung, rung]
        course = self._state.trials[int(here.numbers[0])].course
        ahead = [latest for latest in further if (latest, rung) in sections]
        rows = [np.searchsorted(further[latest].numbers, sections[latest, rung].numbers) for latest in ahead]
        forecasts: dict[str, Forecasts] = {}
        for place, metric in enumerate(self._aim.metrics):
            before = [sections[latest, rung].columns[place] for latest in ahead]
            ends = [further[latest].forecasts[metric].taken(own) for latest, own in zip(ahead, rows, strict=True)]
            forecasts[metric] = forecast_column(
                self._table,
                (course.scoped_kind, metric, rung),
                course,
                here.columns[place],
                self._state.evidence,
                Ahead.of(Column.joined(before), ends) if ahead else None,
                self._noises.get((course.scope, metric)),
            )
        return Pack(self._aim, here.numbers, forecasts, here.near)

    @cached_property
    def _noises(self) -> Mapping[tuple[str, str], Noise]:
        return noises_of(self._table, self._state.evidence, self._state.trials.tally.courses)

    def in_group(self, group: str) -> list[Pack]:
        """Return the contenders of a group: the finished ones, then the live ones, those furthest ahead first."""
        if group not in self._groups:
            finished, key = self._rivals.finished(group), self._rivals.groups[group]
            packs = []
            for kind, sections in self._rivals.sections.items():
                for (latest, rung), section in sections.items():
                    if latest == rung and (section.groups == key).any():
                        rows = np.flatnonzero(section.groups == key)
                        packs.append(((-rung, int(section.numbers[0])), self.of_kind(kind)[rung], rows))
            packs.sort(key=lambda found: found[0])
            live = [pack if len(rows) == len(pack) else pack.taken(rows) for _, pack, rows in packs]
            self._groups[group] = [*([] if finished is None else [finished]), *live]
        return self._groups[group]

    def live(self) -> Iterator[Pack]:
        """Return all live contenders."""
        for kind in self._rivals.sections:
            yield from self.of_kind(kind).values()


_UNLIKELY = 0.5
"""Below this probability of being feasible, the limit is named as what the trial misses."""


def reason_of(state: State, found: Outlook) -> str:
    """Return the reason of a prune."""
    own, trial, aim = found.contender, state.trials[found.contender.number], state.policy.aim
    tokens = state.policy.stops_tokens[max(trial.reports)]
    metrics = dict.fromkeys([goal.metric for goal in aim.goals])
    parts = [f"at {tokens:,} tokens its forecast is {', '.join(_text(own.forecasts[m]) for m in metrics)}"]
    if own.feasible < _UNLIKELY:
        missed = ", ".join(f"{limit.text()} (forecast {_text(own.forecasts[limit.metric])})" for limit in aim.limits)
        parts.append(f"{_percent(own.feasible)} likely to keep {missed}")
    if found.rival is not None:
        rival = state.trials[found.rival.number]
        end = dict(zip(aim.metrics, rival.reports[max(rival.reports)], strict=True))
        if rival.status == "complete":
            bar = ", ".join(f"{m} {end[m]:.4g}" for m in metrics)
            parts.append(f"the bar is trial {rival.number}, finished with {bar}")
        else:
            forecasts = found.rival.forecasts
            parts.append(f"the bar is trial {rival.number}, forecast {', '.join(_text(forecasts[m]) for m in metrics)}")
    kept = "on the front" if len(aim.goals) > 1 else "best at its L0" if aim.matched else "best"
    parts.append(f"{_percent(found.probability)} likely to end {kept}")
    return "; ".join(parts)


def _text(known: Forecast) -> str:
    if not known.is_known:
        return f"{known.metric} unknown"
    low, high = known.interval()
    return f"{known.metric} {known.value:.4g} ({low:.4g} to {high:.4g})"


def _percent(probability: float) -> str:
    return "under 0.1%" if probability < 0.001 else f"{100 * probability:.2g}%"
