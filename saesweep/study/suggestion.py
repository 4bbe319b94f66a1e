"""One suggestion, as a pure function of the trials so far and a seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import RandomSampler
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from saesweep.errors import UserError
from saesweep.space import all_points, next_point
from saesweep.study.encoding import Encoding
from saesweep.study.observed import Observation, RelatedTrials, seen_by
from saesweep.study.samplers import SamplerFactory

_ATTEMPTS = 11
"""A suggestion that repeats an earlier trial, or is refused, is made again up to ten times by the sampler, ..."""
_RANDOM_ATTEMPTS = 200
"""... then so often at random; what is left of a space with finitely many points is found by listing it."""

_COPY = "copy"
"""Name of the study that a sampler sees."""


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


def suggest(
    encoding: Encoding,
    observed: Sequence[Observation],
    *,
    directions: Sequence[StudyDirection],
    sampler: SamplerFactory,
    entropy: Sequence[int],
    settings: Mapping[str, Any],
    stratum: Mapping[str, Any],
    related: RelatedTrials | None = None,
    n_earlier: int = 0,
    refuses: Callable[[Mapping[str, Any]], bool] | None = None,
) -> Suggestion:
    """Suggest a trial in an in-memory copy of the study, so that nothing half-made ever reaches the storage.

    Args:
        encoding: The search space as Optuna stores it.
        observed: Trials of an earlier study, then all trials so far, running ones included, in number order.
        directions: Of the objectives.
        sampler: Builds the sampler from a seed.
        entropy: The experiment's seed and the number of the trial.
        settings: Values by path that are given rather than suggested.
        stratum: The part of `settings` that all trials of the stratum share: the sampler sees only trials with these
            values, and without these parameters, which are constant for it.
        related: Which trials of other strata it sees as well.
        n_earlier: How many of them are of an earlier study.
        refuses: Whether settings by path are not worth a trial. One that is refused is suggested after all where the space
            seems to have no other.
    """
    seen = [one.params for one in observed]
    storage = InMemoryStorage()
    study_id = storage.create_new_study(directions, _COPY)
    for trial in seen_by(encoding, observed, stratum, related):  # `Study.add_trials` would check each of them again
        storage.create_new_trial(study_id, template_trial=trial)
    study = optuna.load_study(study_name=_COPY, storage=storage, sampler=sampler(_seed(entropy, 0)))
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


def next_of_grid(encoding: Encoding, trials: Sequence[FrozenTrial], settings: Mapping[str, Any]) -> Suggestion:
    """Return the first point of the grid that no trial has.

    Args:
        encoding: The search space as Optuna stores it.
        trials: All trials so far.
        settings: Values by path that are given.

    Raises:
        UserError: There is none left.
    """
    point = next_point(encoding.space, [encoding.decode(trial.params) for trial in trials], settings)
    if point is None:
        raise UserError(f"search.sampler: the grid has no point left for trial {len(trials)} {settings or ''}".rstrip())
    return frozen(encoding, point)


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
