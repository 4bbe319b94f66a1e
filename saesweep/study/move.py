"""Moving a study to another space in which all its trials lie: an added choice, a wider range."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial

from saesweep.errors import UserError
from saesweep.space import Space
from saesweep.study.encoding import Encoding, decode_described
from saesweep.study.rewrite import rewrite
from saesweep.study.storage import (
    OWNER_KEY,
    SETUP_KEY,
    close_storage,
    open_storage,
    shown,
    silence_optuna,
    translate_damage,
)
from saesweep.study.suggestion import frozen

MAX_NAMED = 8
"""Trials that one message names."""


def move_study(
    storage: RDBStorage,
    study: optuna.Study,
    space: Space,
    *,
    described: Mapping[str, Any],
    attrs: Mapping[str, Any],
    owner: str | None,
) -> optuna.Study:
    """Return the study with the same trials as points of another space; Optuna takes no other choices in a study as it is.

    Args:
        storage: Where it is kept.
        study: The study.
        space: The new space.
        described: The space that it was made for, as `Space.describe` described it.
        attrs: The attributes that it is to have.
        owner: The run that writes it, where other runs can reach the same storage.

    Raises:
        UserError: A trial does not lie in the new space; nothing has changed.
    """
    trials = study.get_trials()
    params = [decode_described(described, trial.params) for trial in trials]
    check_inside(space, dict(enumerate(params)))
    encoding = Encoding(space)
    return rewrite(storage, study, [_moved(t, encoding, p) for t, p in zip(trials, params, strict=True)], attrs, owner)


def trials_of(path_or_url: str, name: str, owner: str | None) -> dict[int, dict[str, Any]]:
    """Return the values by path of every trial that a run has in its study, by number; nothing where there is no study.

    Args:
        path_or_url: A SQLite file, or any database URL that Optuna takes.
        name: Name of the study in the storage.
        owner: The run that writes it, where other runs can reach the same database.

    Raises:
        UserError: The storage cannot be opened, or is damaged.
    """
    if "://" not in path_or_url and not (Path(path_or_url).is_file() and Path(path_or_url).stat().st_size):
        return {}
    silence_optuna()
    storage = open_storage(path_or_url)
    try:
        with translate_damage(shown(path_or_url)):
            if name not in optuna.get_all_study_names(storage):
                return {}
            study = optuna.load_study(study_name=name, storage=storage)
            described = study.user_attrs.get(SETUP_KEY)
            if described is None or study.user_attrs.get(OWNER_KEY) != owner:
                return {}
            return {t.number: decode_described(described["space"], t.params) for t in study.get_trials(deepcopy=False)}
    finally:
        close_storage(storage)


def check_inside(space: Space, trials: Mapping[int, Mapping[str, Any]]) -> None:
    """Check that trials are points of a space.

    Args:
        space: The space.
        trials: Their values by dotted path, by number.

    Raises:
        UserError: Some are not; the message names them and the reason.
    """
    outside: dict[str, list[int]] = {}
    for number, params in trials.items():
        if (reason := space.why_outside(params)) is not None:
            outside.setdefault(reason, []).append(number)
    if outside:
        raise UserError("\n".join(f"{named(numbers)} {reason}" for reason, numbers in outside.items()))


def named(numbers: Sequence[int]) -> str:
    """Return the trials of these numbers as text."""
    shown = [str(number) for number in numbers[:MAX_NAMED]]
    more = len(numbers) - len(shown)
    return f"trial{'s' * (len(numbers) > 1)} {', '.join(shown)}" + (f" and {more} more" if more else "") + ":"


def _moved(trial: FrozenTrial, encoding: Encoding, params: Mapping[str, Any]) -> FrozenTrial:
    """Return a copy of a trial with its values as the space names and encodes them; everything else stays."""
    point, found = frozen(encoding, params), copy.deepcopy(trial)
    found.params, found.distributions = point.named, point.distributions
    return found
