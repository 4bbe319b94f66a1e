"""Trials of an earlier study, for a sampler to learn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from saesweep.space import Space
from saesweep.study.encoding import STATES, Encoding, TrialRecord, to_record
from saesweep.study.rewrite import whole_study
from saesweep.study.storage import open_storage, refuse_empty, silence_optuna, translate_damage
from saesweep.study.suggestion import frozen


@dataclass(frozen=True, kw_only=True)
class EarlierTrial:
    """A finished trial of another run, in the terms of this one."""

    params: dict[str, Any]
    """Values by dotted path."""
    values: tuple[float, ...]
    """One per objective of this study, in its own direction."""
    constraints: Mapping[str, float] = field(default_factory=dict)
    """Violations of this study's constraints; above 0 is infeasible."""


def read_study(path: Path, space: Space) -> list[TrialRecord]:
    """Return the trials of the only study in a SQLite file, in number order.

    Args:
        path: The file.
        space: The space that the study searched.

    Raises:
        UserError: The file is no study.
    """
    silence_optuna()
    refuse_empty(path)
    storage = open_storage(str(path))
    try:
        with translate_damage(str(path)):
            return _records(storage, Encoding(space))
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _records(storage: RDBStorage, encoding: Encoding) -> list[TrialRecord]:
    trials = whole_study(storage).get_trials(deepcopy=False)
    return [to_record(trial, encoding) for trial in trials if trial.state in STATES]


def as_trials(encoding: Encoding, history: Sequence[EarlierTrial]) -> list[FrozenTrial]:
    """Return earlier trials as complete Optuna trials of this space."""
    found = []
    for trial in history:
        point = frozen(encoding, trial.params)
        found.append(
            optuna.trial.create_trial(
                state=TrialState.COMPLETE,
                values=list(trial.values),
                params=point.named,
                distributions=point.distributions,
                constraints=dict(trial.constraints),
            )
        )
    return found
