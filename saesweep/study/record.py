"""A trial of the study, in the words of the experiment."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from optuna.trial import FrozenTrial, TrialState

from saesweep.study.encoding import Encoding

RecordState = Literal["running", "complete", "pruned", "failed"]
TerminalState = Literal["complete", "pruned"]

RUNG_PREFIX = "rung:"
"""Reports of several objectives are attributes of this name and the tokens; Optuna's own reports hold one value."""

STATES: Mapping[TrialState, RecordState] = {
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """What the study holds of one trial."""

    number: int
    params: dict[str, Any]
    """Values by dotted path."""
    state: RecordState
    values: tuple[float, ...] | None
    """Objective values of a complete trial, in the order of the objectives."""
    constraints: dict[str, float] = field(default_factory=dict)
    """Violations by name; above 0 is infeasible."""
    rungs: dict[int, tuple[float, ...]] = field(default_factory=dict)
    """Reported objective values by training tokens."""
    attrs: dict[str, Any] = field(default_factory=dict)
    """Everything else that was told."""


@dataclass(frozen=True)
class ExpectedEnd:
    """What a trial that was pruned, or is still training, is expected to be worth at its end."""

    values: tuple[float, ...]
    """One per objective, in its own direction."""
    violations: Mapping[str, float]
    """By name, as a complete trial's constraints; above 0 is infeasible."""

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values, the study's user attribute `expected`."""
        return {"values": list(self.values), "violations": dict(self.violations)}

    @classmethod
    def of(cls, trial: FrozenTrial) -> ExpectedEnd | None:
        """Return what the study was told of a pruned trial; None where it was told nothing."""
        found = trial.user_attrs.get("expected")
        return None if found is None else cls(tuple(found["values"]), found["violations"])


def to_record(trial: FrozenTrial, encoding: Encoding) -> TrialRecord:
    """Return an Optuna trial as a record."""
    attrs = {key: value for key, value in trial.user_attrs.items() if not key.startswith(RUNG_PREFIX)}
    # A pruned trial takes its last report as its value in Optuna; it is a report, no result.
    values = tuple(trial.values) if trial.state == TrialState.COMPLETE else None
    return TrialRecord(
        number=trial.number,
        params=encoding.decode(trial.params),
        state=STATES[trial.state],
        values=values,
        constraints=dict(trial.constraints),
        rungs=rung_reports(trial),
        attrs=attrs,
    )


def rung_reports(trial: FrozenTrial) -> dict[int, tuple[float, ...]]:
    """Return the reports of a trial by training tokens, ascending."""
    reports = {tokens: (value,) for tokens, value in trial.intermediate_values.items()}
    for key, values in trial.user_attrs.items():
        if key.startswith(RUNG_PREFIX):
            known = values.values() if isinstance(values, dict) else values  # a list in studies of earlier versions
            reports[int(key.removeprefix(RUNG_PREFIX))] = tuple(known)
    return dict(sorted(reports.items()))


def named_values(values: Sequence[float], names: Sequence[str]) -> dict[str, float] | list[float]:
    """Return a rung's report of several objectives as the study stores it: by name, so that a dashboard shows what is what."""
    return dict(zip(names, values, strict=True)) if names else list(values)


def same_values(a: Sequence[float] | None, b: Sequence[float] | None) -> bool:
    """Return whether two reports are equal to the last bit, NaN being equal to NaN."""
    if a is None or b is None:
        return a is b
    return len(a) == len(b) and all(x == y or (math.isnan(x) and math.isnan(y)) for x, y in zip(a, b, strict=True))
