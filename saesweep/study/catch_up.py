"""A study that lags behind a checkpoint (its file is missing, empty, or an older copy) is brought up to it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from saesweep.errors import UserError
from saesweep.status import DecidedStatus, is_live
from saesweep.study.encoding import TrialRecord, same_values
from saesweep.study.storage import translate_damage

if TYPE_CHECKING:
    from saesweep.study.study import Study

_FIX = "restore the study.db of this run; or delete it, and it is made again from the checkpoint"
_WITHOUT_NOTES = ("tpe", "random", "grid", "fixed")
"""Samplers that keep nothing in the study but the trials themselves."""


@dataclass(frozen=True, kw_only=True)
class KeptTrial:
    """What a checkpoint holds of one trial."""

    number: int
    params: Mapping[str, Any]
    """Values by dotted path."""
    state: DecidedStatus | None
    """How it had ended; None where it was training."""
    values: Sequence[float] | None
    constraints: Mapping[str, float] = field(default_factory=dict)
    rungs: Mapping[int, Sequence[float]] = field(default_factory=dict)
    """Reported objective values by training tokens."""
    attrs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Ahead:
    """What a study holds of a trial beyond a checkpoint."""

    n_rungs: int
    has_ended: bool


def ahead_of(known: Mapping[int, TrialRecord], kept: Sequence[KeptTrial]) -> dict[int, Ahead]:
    """Return what a study holds beyond a checkpoint, by trial: a resumed run repeats it.

    Args:
        known: The study's trials, by number.
        kept: Those of the checkpoint.
    """
    before = {trial.number: trial for trial in kept}
    found = {}
    for number, record in known.items():
        trial, has_ended = before.get(number), not is_live(record.state)
        if trial is None or (trial.state is None and (has_ended or len(record.rungs) > len(trial.rungs))):
            found[number] = Ahead(len(record.rungs), has_ended)
    return found


def catch_up(study: Study, kept: Sequence[KeptTrial]) -> tuple[dict[int, TrialRecord], int]:
    """Give a study what a checkpoint holds and it does not; what both hold must be equal.

    A study that is ahead of the checkpoint stays as it is: the run repeats what came after, and each repetition is verified.

    Args:
        study: The study of the run.
        kept: The trials of its checkpoint, in number order from 0.

    Returns:
        The study's trials by number, and how many of them lacked something.

    Raises:
        UserError: The study is damaged, or holds other trials than the checkpoint.
    """
    with translate_damage("study.db"):
        known = {record.number: record for record in study.trials()}
    behind = [trial for trial in kept if trial.number not in known or _lacks(known[trial.number], trial)]
    if not behind:
        return known, 0
    if study.sampler not in _WITHOUT_NOTES and any(trial.number not in known for trial in behind):
        raise UserError(
            f"study.db lacks trials that the checkpoint holds, and what search.sampler {study.sampler} noted about them "
            "is nowhere else; restore the study.db of this run, or start a new run with --run-dir"
        )
    for trial in behind:
        if trial.number not in known:
            study.restore(trial.number, trial.params)
        for tokens, values in trial.rungs.items():
            study.report(trial.number, tokens, values)
        if trial.state is not None:
            study.tell(
                trial.number, trial.state, trial.values, constraints=dict(trial.constraints), attrs=dict(trial.attrs)
            )
    return {record.number: record for record in study.trials()}, len(behind)


def _lacks(record: TrialRecord, trial: KeptTrial) -> bool:
    """Return whether the study lacks a report or the end of a trial.

    Raises:
        UserError: It holds another one.
    """
    if record.params != trial.params:
        _equal(trial, "settings", _plain(record.params), _plain(trial.params))
    missing = False
    for tokens, values in trial.rungs.items():
        found = record.rungs.get(tokens)
        missing |= found is None
        if found is not None and not same_values(found, values):
            _equal(trial, f"report at {tokens} tokens", list(found), list(values))
    if trial.state is None:
        return missing
    if is_live(record.state):
        return True
    _equal(trial, "end", record.state, trial.state)
    _equal(trial, "result", _plain(record.values), _plain(trial.values))
    _equal(trial, "violations", dict(record.constraints), dict(trial.constraints))
    return False


def _equal(trial: KeptTrial, what: str, found: object, expected: object) -> None:
    if found != expected:
        raise UserError(
            f"study.db does not belong to this run's checkpoint: {what} of trial {trial.number}: {found} in the study, "
            f"{expected} in the checkpoint; {_FIX}"
        )


def _plain(value: Any) -> Any:
    """Return a value as JSON gives it back: a checkpoint has lists where the study has tuples."""
    return json.loads(json.dumps(value))
