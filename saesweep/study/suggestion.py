"""One suggestion, as a pure function of the trials so far and a seed."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import RandomSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from saesweep.errors import UserError
from saesweep.space import Space, all_points, has_settings
from saesweep.study.encoding import Encoding, ExpectedEnd
from saesweep.study.samplers import SamplerFactory

_ATTEMPTS = 11
"""A suggestion that repeats an earlier trial, or is refused, is made again up to ten times by the sampler, ..."""
_RANDOM_ATTEMPTS = 200
"""... then so often at random; what is left of a space with finitely many points is found by listing it."""

_AIMED = frozenset({"sae.k", "sae.l0_coefficient", "sae.l1_coefficient"})
"""Parameters that decide the L0, and so mean something else where trials aim at another one."""


@dataclass(frozen=True)
class Suggestion:
    """The settings of a new trial, ready to be stored."""

    params: dict[str, Any]
    """Values by dotted path."""
    named: dict[str, Any]
    """Values by Optuna name, as Optuna stores them."""
    distributions: dict[str, BaseDistribution]
    """Distributions by Optuna name."""
    system_attrs: dict[str, Any]
    """What the sampler noted about the trial (the generation of NSGA-II)."""


@dataclass(frozen=True)
class Kin:
    """Trials that differ from a stratum in what they aim at alone, so that some of their settings teach something too."""

    settings: Mapping[str, Any]
    """What they share with the stratum, by path."""
    paths: frozenset[str]
    """Parameters that are learned from them, such as the learning rate."""
    until: int
    """Finished trials of the stratum from which on it learns from its own alone: what is best there may be a little different."""


def kin_of(space: Space, stratum: Mapping[str, Any], aim: Collection[str], *, until: int) -> Kin | None:
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
    return Kin(shared, frozenset(paths), until)


def suggest(
    encoding: Encoding,
    trials: Sequence[FrozenTrial],
    *,
    directions: Sequence[StudyDirection],
    sampler: SamplerFactory,
    entropy: Sequence[int],
    settings: Mapping[str, Any],
    stratum: Mapping[str, Any],
    kin: Kin | None = None,
    n_earlier: int = 0,
    refuses: Callable[[Mapping[str, Any]], bool] | None = None,
) -> Suggestion:
    """Suggest a trial in an in-memory copy of the study, so that nothing half-made ever reaches the storage.

    Args:
        encoding: The search space as Optuna stores it.
        trials: Those of an earlier study, then all trials so far, running ones included, in number order.
        directions: Of the objectives.
        sampler: Builds the sampler from a seed.
        entropy: The experiment's seed and the number of the trial.
        settings: Values by path that are given rather than suggested.
        stratum: The part of `settings` that all trials of the stratum share: the sampler sees only trials with these
            values, and without these parameters, which are constant for it.
        kin: Which trials of other strata it sees as well.
        n_earlier: How many of `trials` are of an earlier study.
        refuses: Whether settings by path are not worth a trial. One that is refused is suggested after all where the space
            seems to have no other.
    """
    seen = [encoding.decode(trial.params) for trial in trials]
    study = optuna.create_study(directions=directions, sampler=sampler(_seed(entropy, 0)))
    own = [trial for trial, params in zip(trials, seen, strict=True) if has_settings(params, stratum)]
    if kin is None or sum(trial.state.is_finished() for trial in own) >= kin.until:
        study.add_trials(_with(trial, encoding.space.paths - set(stratum), encoding) for trial in own)
    else:
        study.add_trials(_with_kin(encoding, trials, seen, stratum, kin))
    suggestion = _draw(study, encoding, settings)
    for attempt in range(1, _ATTEMPTS + _RANDOM_ATTEMPTS):
        if suggestion.params not in seen and not (refuses is not None and refuses(suggestion.params)):
            return suggestion
        study.tell(len(study.get_trials(deepcopy=False)) - 1, state=TrialState.FAIL)
        seed = _seed(entropy, attempt)
        study.sampler = sampler(seed) if attempt < _ATTEMPTS else RandomSampler(seed=seed)
        suggestion = _draw(study, encoding, settings)
    tried = seen[n_earlier:]  # what an earlier run has tried may be tried again, but here a copy teaches nothing
    unseen = [point for point in all_points(encoding.space.parameters, settings) or () if point not in tried]
    unseen = [point for point in unseen if refuses is None or not refuses(point)] or unseen
    if not unseen:
        return suggestion
    return frozen(encoding, unseen[_seed(entropy, attempt + 1) % len(unseen)])


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


def frozen(encoding: Encoding, params: Mapping[str, Any]) -> Suggestion:
    """Return given values by path, complete for the space, as a suggestion."""
    filled: dict[str, Any] = {}
    named, distributions = {}, {}
    for parameter in encoding.space.walk(filled):
        filled[parameter.path] = params[parameter.path]
        named[parameter.name] = encoding.encode(parameter, params[parameter.path])
        distributions[parameter.name] = encoding.distributions[parameter.name]
    return Suggestion(filled, named, distributions, {})


def _draw(study: optuna.Study, encoding: Encoding, settings: Mapping[str, Any]) -> Suggestion:
    """Ask the sampler for one value after the other, in the order of their dependence."""
    trial = study.ask()
    params: dict[str, Any] = {}
    for parameter in encoding.space.walk(params):
        given = settings.get(parameter.path)
        if parameter.path not in settings:
            params[parameter.path] = encoding.suggest(parameter, trial)
        elif parameter.spec.contains(given):
            params |= encoding.decode({parameter.name: encoding.encode(parameter, given)})
        else:
            raise UserError(
                f"{parameter.path}: {given!r} is outside {parameter.spec.range_text}, its range for {params}"
            )
    unused = [path for path in settings if path not in params]
    if unused:
        raise UserError(f"{', '.join(unused)}: given, but not active together with {params}")
    notes = study.get_trials(deepcopy=False)[-1].system_attrs
    made = frozen(encoding, params)
    return Suggestion(
        params=made.params,
        named=made.named,
        distributions=made.distributions,
        # TPE notes its draft, which also has parameters that turned out inactive or given.
        system_attrs={key: value for key, value in notes.items() if not key.startswith("tpe:")},
    )


def _seed(entropy: Sequence[int], attempt: int) -> int:
    """Return a 32-bit seed for one attempt at one trial."""
    words = [*entropy, attempt] if attempt else list(entropy)
    return int(np.random.SeedSequence(words).generate_state(1)[0])


def _with_kin(
    encoding: Encoding,
    trials: Sequence[FrozenTrial],
    seen: Sequence[Mapping[str, Any]],
    stratum: Mapping[str, Any],
    kin: Kin,
) -> list[FrozenTrial]:
    """Return the trials of a stratum and its finished kin, each with its rank among those that aim at the same.

    What trials with different aims reach cannot be compared; which of them are the better ones of their aim can.
    """
    aims = [path for path in stratum if path not in kin.settings]
    by_aim: dict[tuple[Any, ...], list[FrozenTrial]] = {}
    for trial, params in zip(trials, seen, strict=True):
        if has_settings(params, kin.settings):
            by_aim.setdefault(tuple(params.get(path) for path in aims), []).append(trial)
    own = tuple(stratum[path] for path in aims)
    found = []
    for aim, members in by_aim.items():
        paths = encoding.space.paths - set(stratum) if aim == own else set(kin.paths)
        ended = sorted(
            trial.value for trial in members if trial.state == TrialState.COMPLETE and trial.value is not None
        )
        for trial in members:
            if trial.state == TrialState.COMPLETE and trial.value is not None:
                found.append(_with(trial, paths, encoding, [(bisect_left(ended, trial.value) + 0.5) / len(ended)]))
            elif aim == own:
                found.append(_with(trial, paths, encoding))
    return found


def _with(
    trial: FrozenTrial, paths: Collection[str], encoding: Encoding, values: Sequence[float] | None = None
) -> FrozenTrial:
    """Return a copy of a trial with the parameters at these paths alone, in the ranges as they are now (they may widen).

    Args:
        trial: The trial.
        paths: Of the parameters that are kept.
        encoding: The search space as Optuna stores it.
        values: In place of its own.
    """
    kept = {parameter.name for parameter in encoding.space.parameters if parameter.path in paths}
    return optuna.trial.create_trial(
        state=trial.state,
        values=trial.values if values is None else values,
        params={name: value for name, value in trial.params.items() if name in kept},
        distributions={name: encoding.distributions[name] for name in trial.distributions if name in kept},
        system_attrs=trial.system_attrs,
        intermediate_values=trial.intermediate_values,
    )
