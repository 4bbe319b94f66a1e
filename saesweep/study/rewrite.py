"""Putting other trials in the place of those of a study, in one transaction: a kill leaves the old study or the new one.

Taking a study back to an earlier moment of its run is one such change.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import text

from saesweep.study.encoding import RUNG_PREFIX, STATES
from saesweep.study.storage import OWNER_KEY, close_storage, open_storage, silence_optuna

_NEW, _OLD = "~new", "~old"


def rewrite(
    storage: RDBStorage, study: optuna.Study, trials: Sequence[FrozenTrial], attrs: Mapping[str, Any], owner: str | None
) -> optuna.Study:
    """Return a study of the same name with these trials, numbered from 0, and these attributes; the old one is gone.

    Args:
        storage: Where both are kept.
        study: The old one.
        trials: All trials of the new one.
        attrs: Its user attributes.
        owner: The run that writes it, where other runs can reach the same storage.
    """
    name = study.study_name
    new, old = beside(name, owner)
    remove_unfinished_rewrite(storage, name, owner)
    copy = optuna.create_study(sampler=study.sampler, study_name=new, directions=study.directions, storage=storage)
    for key, value in attrs.items():
        copy.set_user_attr(key, value)
    copy.add_trials(trials)
    rename = text("UPDATE studies SET study_name = :name WHERE study_id = :number")
    numbers = {found: storage.get_study_id_from_name(found) for found in (name, new)}
    with storage.engine.begin() as connection:  # Optuna renames no study, and its names are unique
        connection.execute(rename, {"name": old, "number": numbers[name]})
        connection.execute(rename, {"name": name, "number": numbers[new]})
    optuna.delete_study(study_name=old, storage=storage)
    return optuna.load_study(study_name=name, storage=storage, sampler=study.sampler)


def remove_unfinished_rewrite(storage: RDBStorage, name: str, owner: str | None) -> None:
    """Delete what a rewriting that was killed has left of a study: the unfinished new one, or the old one."""
    for found in set(beside(name, owner)).intersection(optuna.get_all_study_names(storage)):
        optuna.delete_study(study_name=found, storage=storage)


def beside(name: str, owner: str | None) -> tuple[str, str]:
    """Return the names of the new and the old study while one takes the place of the other."""
    prefix = name if owner is None else f"{name}~{owner}"
    return prefix + _NEW, prefix + _OLD


def whole_study(storage: RDBStorage) -> optuna.Study:
    """Return the study of a file that holds one, and perhaps what a rewriting that was killed has left of it.

    Raises:
        IndexError: There is none.
    """
    names = [name for name in optuna.get_all_study_names(storage) if not name.endswith((_NEW, _OLD))]
    return optuna.load_study(study_name=names[0], storage=storage)


def rewind_study(path: Path, tokens_seen: Mapping[int, int | None]) -> None:
    """Rewrite a study's file as it was at a checkpoint; whole or not at all.

    Args:
        path: The SQLite file of one study.
        tokens_seen: Trials known at the checkpoint, by number from 0: tokens that a live one had seen (later reports
            are dropped, and an end), None for one that had ended. No trials: the file is removed.
    """
    if not path.exists():
        return
    if not tokens_seen:
        path.unlink()
        return
    silence_optuna()
    earlier = path.with_name(f".{path.name}.rewound")
    earlier.unlink(missing_ok=True)
    storage, target = open_storage(str(path)), open_storage(str(earlier))
    try:
        study = whole_study(storage)
        copy = optuna.create_study(study_name=study.study_name, directions=study.directions, storage=target)
        for key, value in study.user_attrs.items():
            copy.set_user_attr(key, value)
        trials = [trial for trial in study.get_trials(deepcopy=False) if trial.state in STATES]
        for trial in trials:
            if trial.number in tokens_seen:
                copy.add_trial(_earlier(trial, tokens_seen[trial.number]))
    finally:
        for opened in (storage, target):
            close_storage(opened)
    os.replace(earlier, path)


def rewind_in_database(url: str, name: str, owner: str, tokens_seen: Mapping[int, int | None]) -> None:
    """Do the same with a study in a database.

    A study of that name that another run writes, or that was not made by saesweep, is left alone: opening it is refused.

    Args:
        url: Of the database.
        name: Of the study.
        owner: The run that writes the study.
        tokens_seen: As for `rewind_study`. No trials: the study is deleted.
    """
    silence_optuna()
    storage = open_storage(url)
    try:
        if name not in optuna.get_all_study_names(storage):
            return
        study = optuna.load_study(study_name=name, storage=storage)
        if study.user_attrs.get(OWNER_KEY) != owner:
            return
        if not tokens_seen:
            optuna.delete_study(study_name=name, storage=storage)
            return
        trials = [trial for trial in study.get_trials() if trial.state in STATES and trial.number in tokens_seen]
        earlier = [_earlier(trial, tokens_seen[trial.number]) for trial in trials]
        rewrite(storage, study, earlier, study.user_attrs, owner)
    finally:
        close_storage(storage)


def _earlier(trial: FrozenTrial, tokens: int | None) -> FrozenTrial:
    if tokens is None:
        return trial
    reports = {key: value for key, value in trial.user_attrs.items() if key.startswith(RUNG_PREFIX)}
    return optuna.trial.create_trial(
        state=TrialState.RUNNING,
        params=trial.params,
        distributions=trial.distributions,
        # What a sampler noted when the trial was asked stays; constraints came with its end.
        system_attrs={key: value for key, value in trial.system_attrs.items() if not key.startswith("constraint")},
        user_attrs={k: v for k, v in reports.items() if int(k.removeprefix(RUNG_PREFIX)) <= tokens},
        intermediate_values={step: v for step, v in trial.intermediate_values.items() if step <= tokens},
    )
