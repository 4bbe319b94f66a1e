"""Trials of an earlier study, for a sampler to learn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from saesweep.study.record import STATES, TrialRecord, to_record
from saesweep.study.rewrite import whole_study
from saesweep.study.space_view import SpaceView
from saesweep.study.storage import damage_told, open_storage, refuse_empty, silence_optuna
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


def read_study(path: Path, space: SpaceView) -> list[TrialRecord]:
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
        with damage_told(str(path)):
            return _records(storage, space)
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _records(storage: RDBStorage, space: SpaceView) -> list[TrialRecord]:
    trials = whole_study(storage).get_trials(deepcopy=False)
    return [to_record(trial, space) for trial in trials if trial.state in STATES]


def lies_in(space: SpaceView, params: Mapping[str, Any]) -> bool:
    """Return whether these values are a point of the space: every active parameter in its range, and no other."""
    return why_outside(space, params) is None


def why_outside(space: SpaceView, params: Mapping[str, Any]) -> str | None:
    """Return in which way these values are no point of the space, to be said of a trial; None where they are one."""
    chosen: dict[str, Any] = {}
    for parameter in space.walk(chosen):
        path = parameter.path
        if path not in params:
            return f"space.{path} is searched now, and there is no value of it"
        if not parameter.contains(params[path]):
            return f"space.{path} is {params[path]!r}, which is not in {parameter.range_text}"
        chosen[path] = params[path]
    left = [path for path in params if path not in chosen]
    return f"space.{left[0]} is {params[left[0]]!r}, and is not searched there any more" if left else None


def as_trials(space: SpaceView, history: Sequence[EarlierTrial]) -> list[FrozenTrial]:
    """Return earlier trials as complete Optuna trials of this space."""
    found = []
    for trial in history:
        point = frozen(space, trial.params)
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
