"""The trials of a study as a sampler sees them: finished as expected, and with those parameters alone that it may learn from."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from saesweep.space import Space, has_settings
from saesweep.study.encoding import Encoding, ExpectedEnd

_AIMED = frozenset({"sae.k", "sae.l0_coefficient", "sae.l1_coefficient"})
"""Parameters that decide the L0, and so mean something else where trials aim at another one."""


@dataclass(frozen=True)
class Observation:
    """One trial."""

    trial: FrozenTrial
    """As it is, or as it is expected to end."""
    params: Mapping[str, Any]
    """Its settings by dotted path."""
    has_ended: bool
    """Nothing of it changes any more."""
    _shown: dict[frozenset[str], FrozenTrial] = field(default_factory=dict)
    """Copies of an ended trial by the paths that they keep."""

    def shown(self, encoding: Encoding, paths: Collection[str], values: Sequence[float] | None = None) -> FrozenTrial:
        """Return a copy with the parameters at these paths alone, in the ranges as they are now (they may widen).

        Args:
            encoding: The search space as Optuna stores it.
            paths: Of the parameters that are kept.
            values: In place of its own.
        """
        if values is not None or not self.has_ended:
            return _copy(self.trial, encoding, paths, values)
        key = frozenset(paths)
        if key not in self._shown:
            self._shown[key] = _copy(self.trial, encoding, paths, None)
        return self._shown[key]


class Observations:
    """All trials of a study, and finished ones of an earlier study before them.

    Those that have ended are read once: of 10,000 trials, copying each of them for every suggestion took more than a second.

    Args:
        encoding: The search space as Optuna stores it.
        earlier: Finished trials of another study.
    """

    def __init__(self, encoding: Encoding, earlier: Sequence[FrozenTrial] = ()) -> None:
        self._encoding = encoding
        self._earlier = [self._observe(trial, None) for trial in earlier]
        self._ended: dict[int, Observation] = {}
        """By number."""

    @property
    def n_earlier(self) -> int:
        """How many of them are of the earlier study."""
        return len(self._earlier)

    def of(self, trials: Sequence[FrozenTrial], expected: Mapping[int, ExpectedEnd]) -> list[Observation]:
        """Return the earlier trials, then these.

        Args:
            trials: All trials of the study so far, running ones included, in number order.
            expected: What running trials are expected to be worth, by number.
        """
        found = list(self._earlier)
        for trial in trials:
            one = self._ended.get(trial.number)
            if one is None:
                one = self._observe(trial, expected.get(trial.number))
                if one.has_ended:
                    self._ended[trial.number] = one
            found.append(one)
        return found

    def _observe(self, trial: FrozenTrial, expected: ExpectedEnd | None) -> Observation:
        params = self._encoding.decode(trial.params)
        return Observation(as_expected(trial, expected), params, has_ended=trial.state.is_finished())


@dataclass(frozen=True)
class RelatedTrials:
    """Trials that differ from a stratum in what they aim at alone, so that some of their settings teach something too."""

    settings: Mapping[str, Any]
    """What they share with the stratum, by path."""
    paths: frozenset[str]
    """Parameters that are learned from them, such as the learning rate."""
    until: int
    """Finished trials of the stratum from which on it learns from its own alone: what is best there may be a little different."""


def related_trials(
    space: Space, stratum: Mapping[str, Any], aim: Collection[str], *, until: int
) -> RelatedTrials | None:
    """Return from which trials of other strata a stratum learns; None where it aims at nothing, or there is nothing to learn.

    Args:
        space: The search space.
        stratum: The settings that its trials share, by path.
        aim: Those paths of it that say what the trials aim at.
        until: Finished trials of its own from which on they alone count.
    """
    shared = {path: value for path, value in stratum.items() if path not in aim}
    paths = space.paths - set(stratum) - _AIMED
    if len(shared) == len(stratum) or not paths:
        return None
    return RelatedTrials(shared, frozenset(paths), until)


def seen_by(
    encoding: Encoding, observed: Sequence[Observation], stratum: Mapping[str, Any], related: RelatedTrials | None
) -> list[FrozenTrial]:
    """Return the trials that the sampler of a stratum learns from.

    Args:
        encoding: The search space as Optuna stores it.
        observed: All trials.
        stratum: Settings by path that all trials of the stratum share: only trials with these values are seen, and without
            these parameters, which are constant for them.
        related: Which trials of other strata are seen as well.
    """
    own = [one for one in observed if has_settings(one.params, stratum)]
    if related is None or sum(one.trial.state.is_finished() for one in own) >= related.until:
        paths = encoding.space.paths - set(stratum)
        return [one.shown(encoding, paths) for one in own]
    return _with_related(encoding, observed, stratum, related)


def as_expected(trial: FrozenTrial, expected: ExpectedEnd | None) -> FrozenTrial:
    """Return a copy of a pruned or running trial as if it had ended as expected; any other trial as it is.

    Args:
        trial: A trial of the study.
        expected: What is expected of it where it is running.
    """
    end = ExpectedEnd.of(trial) if trial.state == TrialState.PRUNED else expected
    if end is None or trial.state == TrialState.COMPLETE:
        return trial
    return optuna.trial.create_trial(
        state=TrialState.COMPLETE,
        values=list(end.values),
        params=trial.params,
        distributions=trial.distributions,
        system_attrs={k: v for k, v in trial.system_attrs.items() if not k.startswith("constraints:")},
        constraints=dict(end.violations),
    )


def _with_related(
    encoding: Encoding, observed: Sequence[Observation], stratum: Mapping[str, Any], related: RelatedTrials
) -> list[FrozenTrial]:
    """Return the trials of a stratum and its finished related ones, each with its rank among those that aim at the same.

    What trials with different aims reach cannot be compared; which of them are the better ones of their aim can.
    """
    aims = [path for path in stratum if path not in related.settings]
    by_aim: dict[tuple[Any, ...], list[Observation]] = {}
    for one in observed:
        if has_settings(one.params, related.settings):
            by_aim.setdefault(tuple(one.params.get(path) for path in aims), []).append(one)
    own = tuple(stratum[path] for path in aims)
    found = []
    for aim, members in by_aim.items():
        paths = encoding.space.paths - set(stratum) if aim == own else related.paths
        results = {
            place: one.trial.value
            for place, one in enumerate(members)
            if one.trial.state == TrialState.COMPLETE and one.trial.value is not None
        }
        ascending = sorted(results.values())
        for place, one in enumerate(members):
            if place in results:
                rank = (bisect_left(ascending, results[place]) + 0.5) / len(ascending)
                found.append(one.shown(encoding, paths, [rank]))
            elif aim == own:
                found.append(one.shown(encoding, paths))
    return found


class _Shared(FrozenTrial):
    """A trial that a study takes without a copy of what it holds: nothing changes it there."""

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenTrial:
        copy = object.__new__(FrozenTrial)
        vars(copy).update(vars(self))
        return copy


def _copy(
    trial: FrozenTrial, encoding: Encoding, paths: Collection[str], values: Sequence[float] | None
) -> FrozenTrial:
    kept = {parameter.name for parameter in encoding.space.parameters if parameter.path in paths}
    return _Shared(
        number=-1,  # the study gives it a number of its own
        trial_id=-1,
        state=trial.state,
        value=None,
        values=trial.values if values is None else values,
        datetime_start=trial.datetime_start,
        datetime_complete=trial.datetime_start if trial.state.is_finished() else None,
        params={name: value for name, value in trial.params.items() if name in kept},
        distributions={name: encoding.distributions[name] for name in trial.distributions if name in kept},
        user_attrs={},
        system_attrs=trial.system_attrs,
        intermediate_values=trial.intermediate_values,
    )
