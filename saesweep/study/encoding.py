"""The values of a space as Optuna stores them, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from saesweep.space import Parameter, Space
from saesweep.specs import ParameterSpec, is_same


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
