"""Taking a study back to an earlier moment of its run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from saesweep.study.record import RUNG_PREFIX, STATES
from saesweep.study.rewrite import rewrite, whole_study
from saesweep.study.storage import OWNER_KEY, close_storage, open_storage, silence_optuna


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
