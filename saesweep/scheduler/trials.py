"""All trials of a sweep as one value that shares what has not changed with the value before it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain

from saesweep.scheduler.aim import Aim
from saesweep.scheduler.rivals import Rivals
from saesweep.scheduler.tally import Tally
from saesweep.scheduler.trial import TrialState

_CHUNK = 256
"""Trials that are copied where one of them changes; near the square root of the longest sweeps."""


class Trials(Mapping[int, TrialState]):
    """The trials by number, and what is counted over them; never altered in place.

    Numbers are 0, 1, 2 and so on. A change copies the chunks in which it lies, and brings the counts up to date.

    Args:
        trials: All of them, in any order.

    Raises:
        ValueError: When a number is missing.
    """

    def __init__(self, trials: Iterable[TrialState] = ()) -> None:
        ordered = sorted(trials, key=lambda trial: trial.number)
        if any(trial.number != place for place, trial in enumerate(ordered)):
            numbers = [trial.number for trial in ordered]
            raise ValueError(f"trial numbers must be 0 to {len(ordered) - 1}, but are {numbers}")
        self._chunks = [tuple(ordered[start : start + _CHUNK]) for start in range(0, len(ordered), _CHUNK)]
        self._length = len(ordered)
        self.tally = Tally().changed((None, trial) for trial in ordered)
        self._rivals: Rivals | None = None

    def __getitem__(self, number: int) -> TrialState:
        if not 0 <= number < self._length:
            raise KeyError(number)
        return self._chunks[number // _CHUNK][number % _CHUNK]

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[int]:
        return iter(range(self._length))

    def updated(self, trials: Iterable[TrialState]) -> Trials:
        """Return the trials with some of them replaced, or added at the end.

        Raises:
            ValueError: When the number of a new one is not the next.
        """
        chunks, length = list(self._chunks), self._length
        changes: list[tuple[TrialState | None, TrialState]] = []
        for trial in trials:
            place, index = divmod(trial.number, _CHUNK)
            if not 0 <= trial.number <= length:
                raise ValueError(f"trial {trial.number} is added, but the next number is {length}")
            if trial.number == length:
                length += 1
                changes.append((None, trial))
                chunks[place:] = [(*chunks[place], trial) if index else (trial,)]
            else:
                changes.append((chunks[place][index], trial))
                chunks[place] = (*chunks[place][:index], trial, *chunks[place][index + 1 :])
        if not changes:
            return self
        found = Trials.__new__(Trials)
        found._chunks, found._length = chunks, length
        found.tally = self.tally.changed(changes)
        found._rivals = None if self._rivals is None else self._rivals.changed(changes)
        return found

    def rivals(self, aim: Aim, end_rung: int) -> Rivals:
        """Return what of the trials counts as a rival; found once, and kept up to date by `updated`."""
        if self._rivals is None or (self._rivals.aim, self._rivals.end_rung) != (aim, end_rung):
            new = ((None, trial) for trial in chain.from_iterable(self._chunks))
            self._rivals = Rivals(aim, end_rung).changed(new)
        return self._rivals
