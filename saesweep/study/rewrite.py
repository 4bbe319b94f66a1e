"""Putting other trials in the place of those of a study, in one transaction: a kill leaves the old study or the new one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial
from sqlalchemy import text

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
    remove_left_overs(storage, name, owner)
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


def remove_left_overs(storage: RDBStorage, name: str, owner: str | None) -> None:
    """Delete what a rewriting that was killed has left of a study: the unfinished new one, or the old one."""
    for found in set(beside(name, owner)).intersection(optuna.get_all_study_names(storage)):
        optuna.delete_study(study_name=found, storage=storage)


def beside(name: str, owner: str | None) -> tuple[str, str]:
    """Return the names of the new and the old study while one takes the place of the other."""
    mine = name if owner is None else f"{name}~{owner}"
    return mine + _NEW, mine + _OLD


def whole_study(storage: RDBStorage) -> optuna.Study:
    """Return the study of a file that holds one, and perhaps what a rewriting that was killed has left of it.

    Raises:
        IndexError: There is none.
    """
    names = [name for name in optuna.get_all_study_names(storage) if not name.endswith((_NEW, _OLD))]
    return optuna.load_study(study_name=names[0], storage=storage)
