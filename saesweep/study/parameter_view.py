"""One range of the search space and its Optuna distribution."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import cached_property
from typing import Any, Literal, get_args

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

Kind = Literal["float", "int", "choice"]


@dataclass(frozen=True, kw_only=True)
class ParameterView:
    """One searched parameter under one condition."""

    path: str
    """Dotted path into the base run."""
    kind: Kind
    low: float | None = None
    """Lower bound, included; None for a choice."""
    high: float | None = None
    """Upper bound, included; None for a choice."""
    log: bool = False
    """Uniform in the logarithm."""
    step: float | None = None
    """Distance between neighbouring values of a range, counted from `low`."""
    choices: tuple[Any, ...] = ()
    """Values of a choice: JSON scalars or lists."""
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """Paths and the values that each may have for this range to be active; empty: always."""
    grid: tuple[Any, ...] | None = None
    """Points that the grid sampler visits; a choice visits its choices."""
    name: str = ""
    """The name in the Optuna study, given by the space."""

    def named(self, name: str) -> ParameterView:
        """Return the same range under an Optuna name."""
        return replace(self, name=name)

    @property
    def condition_text(self) -> str:
        """The condition in one piece of text, e.g. `sae.architecture=gated/standard`."""
        return ",".join(f"{path}={'/'.join(_text(v) for v in values)}" for path, values in self.when.items())

    @property
    def range_text(self) -> str:
        """The range as a person reads it."""
        return f"one of {list(self.choices)}" if self.kind == "choice" else f"[{self.low:g}, {self.high:g}]"

    @cached_property
    def encoded(self) -> tuple[str | int | float | bool | None, ...]:
        """The choices as Optuna stores them: scalars as they are, lists as JSON text."""
        encoded = tuple(_text(c) if isinstance(c, (list, tuple, dict)) else c for c in self.choices)
        if len(set(encoded)) == len(encoded):
            return encoded
        # Optuna compares with ==, for which 1, 1.0 and true are one value.
        return tuple(json.dumps(choice) for choice in self.choices)

    @cached_property
    def distribution(self) -> BaseDistribution:
        """The Optuna distribution."""
        if self.kind == "choice":
            return CategoricalDistribution(self.encoded)
        if self.low is None or self.high is None:
            raise ValueError(f"{self.path}: a {self.kind} range needs low and high")
        high = self.high
        if self.step is not None:
            # Optuna warns and does the same where the range is no multiple of the step.
            low, step = Decimal(str(self.low)), Decimal(str(self.step))
            high = float(low + (Decimal(str(self.high)) - low) // step * step)
        if self.kind == "int":
            return IntDistribution(int(self.low), int(high), log=self.log, step=int(self.step or 1))
        return FloatDistribution(float(self.low), float(high), log=self.log, step=self.step)

    def suggest(self, trial: optuna.Trial) -> Any:
        """Let Optuna choose a value."""
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            return self.decode(trial.suggest_categorical(self.name, d.choices))
        if isinstance(d, IntDistribution):
            return trial.suggest_int(self.name, d.low, d.high, step=d.step, log=d.log)
        assert isinstance(d, FloatDistribution)
        return trial.suggest_float(self.name, d.low, d.high, step=d.step, log=d.log)

    def encode(self, value: Any) -> Any:
        """Return a value of the experiment as Optuna stores it."""
        if self.kind == "choice":
            return self.encoded[self._index(value)]
        return int(value) if self.kind == "int" else float(value)

    def decode(self, stored: Any) -> Any:
        """Return the experiment's value for what Optuna stores."""
        if self.kind != "choice":
            return stored
        matches = [i for i, c in enumerate(self.encoded) if c == stored and type(c) is type(stored)]
        return self.choices[matches[0]]

    def contains(self, value: Any) -> bool:
        """Return whether a value lies in the range; a number for a range, one of the values for a choice."""
        if self.kind == "choice":
            return any(same_value(choice, value) for choice in self.choices)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        d = self.distribution
        assert isinstance(d, (IntDistribution, FloatDistribution))
        if not d.low <= value <= d.high:
            return False
        # A float range without steps has a multiple of nothing to keep; log ranges of integers have step 1.
        steps = 0.0 if d.step is None else (value - d.low) / d.step
        return abs(steps - round(steps)) < 1e-8

    @property
    def values(self) -> Sequence[Any] | None:
        """All values that a trial can have here; None for a continuous range."""
        d = self.distribution
        if self.kind == "choice":
            return self.choices
        if isinstance(d, IntDistribution):
            return range(d.low, d.high + 1, d.step)
        assert isinstance(d, FloatDistribution)
        if d.step is None:
            return (d.low,) if d.single() else None
        low, step = Decimal(str(d.low)), Decimal(str(d.step))
        return [float(low + i * step) for i in range(round((d.high - d.low) / d.step) + 1)]

    @property
    def points(self) -> tuple[Any, ...] | None:
        """The values that a grid visits; None where none are given."""
        return self.choices if self.kind == "choice" else self.grid

    def describe(self) -> dict[str, Any]:
        """Return the range as plain JSON values."""
        when = {path: list(values) for path, values in self.when.items()}
        if self.kind == "choice":
            return {"choice": list(self.choices), "when": when}
        return {self.kind: [self.low, self.high], "log": self.log, "step": self.step, "when": when}

    @classmethod
    def described(cls, name: str, description: Mapping[str, Any]) -> ParameterView:
        """Return the range of that Optuna name that `describe` described, as far as values are read by it."""
        kind = next(kind for kind in get_args(Kind) if kind in description)
        choices = tuple(description["choice"]) if kind == "choice" else ()
        low, high = (None, None) if kind == "choice" else description[kind]
        return cls(path=name.partition("|")[0], kind=kind, choices=choices, low=low, high=high, name=name)

    def _index(self, value: Any) -> int:
        return next(i for i, choice in enumerate(self.choices) if same_value(choice, value))


def _text(value: Any) -> str:
    """Return a string as it is and any other value as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def same_value(a: Any, b: Any) -> bool:
    """Return whether two JSON values are the same, telling 1 from true but not from 1.0, nor lists from tuples."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(same_value(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)
