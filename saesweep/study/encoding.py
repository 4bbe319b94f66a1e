"""Values and trials as Optuna stores them, and in the words of the experiment."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from saesweep.space import Parameter, Space
from saesweep.specs import ParameterSpec, is_same
from saesweep.status import DecidedStatus, TrialStatus


class Encoding:
    """The Optuna form of a space: a distribution for each parameter, and values in both forms."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.distributions: dict[str, BaseDistribution] = {p.name: _distribution(p.spec) for p in space.parameters}
        """By the name of the parameter in the study."""
        self._choices = {
            p.name: choices_by_stored(p.spec.choice) for p in space.parameters if p.spec.choice is not None
        }

    def suggest(self, parameter: Parameter, trial: optuna.Trial) -> Any:
        """Let Optuna choose a value."""
        d = self.distributions[parameter.name]
        if isinstance(d, CategoricalDistribution):
            return self._value(parameter.name, trial.suggest_categorical(parameter.name, d.choices))
        if isinstance(d, IntDistribution):
            return trial.suggest_int(parameter.name, d.low, d.high, step=d.step, log=d.log)
        assert isinstance(d, FloatDistribution)
        return trial.suggest_float(parameter.name, d.low, d.high, step=d.step, log=d.log)

    def encode(self, parameter: Parameter, value: Any) -> Any:
        """Return a value that the parameter's range contains as Optuna stores it."""
        spec = parameter.spec
        if spec.choice is not None:
            index = next((i for i, choice in enumerate(spec.choice) if is_same(choice, value)), None)
            if index is None:
                raise ValueError(f"{parameter.path}: {value!r} is outside {spec.range_text}")
            return stored_choices(spec.choice)[index]
        return int(value) if spec.kind == "int" else float(value)

    def decode(self, named: Mapping[str, Any]) -> dict[str, Any]:
        """Return values by dotted path from Optuna's parameters."""
        return {self.space.by_name[name].path: self._value(name, stored) for name, stored in named.items()}

    def _value(self, name: str, stored: Any) -> Any:
        choices = self._choices.get(name)
        return stored if choices is None else choices[type(stored), stored]


def stored_choices(choices: Sequence[Any]) -> tuple[str | int | float | bool | None, ...]:
    """Return choices as Optuna stores them: scalars as they are, lists as JSON text."""
    encoded = tuple(_text(c) if isinstance(c, (list, tuple, dict)) else c for c in choices)
    if len(set(encoded)) == len(encoded):
        return encoded
    # Optuna compares with ==, for which 1 and true are one value.
    return tuple(json.dumps(choice) for choice in choices)


def choices_by_stored(choices: Sequence[Any]) -> dict[tuple[type, Any], Any]:
    """Return the choices by the type and value of what Optuna stores: Python alone takes 1 and true for one key."""
    return {(type(stored), stored): choice for stored, choice in zip(stored_choices(choices), choices, strict=True)}


def decode_described(space: Mapping[str, Any], named: Mapping[str, Any]) -> dict[str, Any]:
    """Return values by dotted path from Optuna's parameters, read by the description of their space.

    Args:
        space: What `Space.describe` returned.
        named: Values by the names of the space.
    """
    found = {}
    for name, stored in named.items():
        choices = space[name].get("choice")
        value = stored if choices is None else choices_by_stored(choices)[type(stored), stored]
        found[name.partition("|")[0]] = value
    return found


def _distribution(spec: ParameterSpec) -> BaseDistribution:
    if spec.choice is not None:
        return CategoricalDistribution(stored_choices(spec.choice))
    if spec.kind == "int":
        return IntDistribution(int(spec.low), int(spec.high), log=spec.log, step=int(spec.step or 1))
    return FloatDistribution(float(spec.low), float(spec.high), log=spec.log, step=spec.step)


def _text(value: Any) -> str:
    """Return a string as it is and any other value as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


RUNG_PREFIX = "rung:"
"""Reports of several objectives are attributes of this name and the tokens; Optuna's own reports hold one value."""

STATES: Mapping[TrialState, TrialStatus] = {
    TrialState.RUNNING: "training",
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
    state: TrialStatus
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


def verify_end(
    known: TrialRecord, status: DecidedStatus, values: tuple[float, ...] | None, constraints: Mapping[str, float]
) -> None:
    """Raise a RuntimeError where a trial has not ended as a replay says."""
    before = (known.state, known.values, known.constraints)
    now = (status, values, {key: float(violation) for key, violation in constraints.items()})
    if before != now:
        raise RuntimeError(f"trial {known.number} ended as {before}, but the replay ends it as {now}")


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
