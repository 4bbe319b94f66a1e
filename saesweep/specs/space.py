"""The search space: dotted paths of the base run, each with a range or a choice."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from saesweep.specs.model import Spec
from saesweep.specs.units import parse_count

_MAX_SHOWN = 60
"""Characters of a list of choices in a message."""


def _values(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _number(value: Any) -> Any:
    """Return a bound that is written as a count (`10k`) as its number; everything else as it is."""
    if isinstance(value, str) and value[-1:].lower() in tuple("kmbt") and value[:1].isdigit():
        return parse_count(value)
    return value


def _pair(value: Any) -> Any:
    if isinstance(value, (list, tuple)) and len(value) == 2:
        return tuple(map(_number, value))
    raise ValueError("takes [low, high], both included; to try certain values, write choice: [...]")


def _points(value: Any) -> Any:
    return tuple(map(_number, value)) if isinstance(value, (list, tuple)) else value


def _conditions(value: Any) -> Any:
    if not isinstance(value, dict):
        raise ValueError("takes a mapping of dotted paths to a value or a list of values")
    return {path: tuple(v) if isinstance(v, (list, tuple)) else (v,) for path, v in value.items()}


def is_same(a: Any, b: Any) -> bool:
    """Return whether two plain values are one: 64 and 64.0 are, 1 and true are not, and a list is what its items are."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(is_same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def is_among(value: Any, values: Iterable[Any]) -> bool:
    """Return whether a plain value is the same as one of others."""
    return any(is_same(value, other) for other in values)


def _shown(value: float) -> str:
    return f"{value:g}" if float(f"{value:g}") == value else repr(value)


FloatPair = Annotated[
    tuple[float, float], BeforeValidator(_pair, json_schema_input_type=tuple[float | str, float | str])
]
IntPair = Annotated[tuple[int, int], BeforeValidator(_pair, json_schema_input_type=tuple[int | str, int | str])]


class ParameterSpec(Spec):
    """One searched parameter: exactly one of `float`, `int`, `choice`."""

    float_: FloatPair | None = Field(None, alias="float")
    """[low, high], both included, as values (never as exponents); a bound may be a count such as 10k."""
    int_: IntPair | None = Field(None, alias="int")
    """[low, high], both included; a bound may be a count such as 10k."""
    choice: Annotated[tuple[Any, ...], BeforeValidator(_values)] | None = None
    """The values to choose from."""
    log: bool = False
    """Sample uniformly in the logarithm."""
    step: float | None = Field(None, gt=0)
    """Distance between neighbouring values of a `float` or `int`; not with `log`."""
    grid: Annotated[tuple[Any, ...], BeforeValidator(_points)] | None = None
    """The points that `search.sampler: grid` visits for a `float` or `int`."""
    when: Annotated[dict[str, tuple[Any, ...]], BeforeValidator(_conditions)] = {}
    """Sample only where these parameters have one of these values. The architecture's own fields need no `when`."""

    @property
    def kind(self) -> Literal["float", "int", "choice"]:
        """Which of the three this is."""
        return "float" if self.float_ is not None else "int" if self.int_ is not None else "choice"

    @property
    def low(self) -> float:
        """The lower bound of a range."""
        bounds = self.float_ or self.int_
        assert bounds is not None
        return bounds[0]

    @property
    def high(self) -> float:
        """The upper bound of a range."""
        bounds = self.float_ or self.int_
        assert bounds is not None
        return bounds[1]

    def extremes(self) -> tuple[Any, ...]:
        """Return the values at the edge of the range, or every choice: what a static check tries."""
        if self.choice is not None:
            return self.choice
        return (self.low, self.high)

    def contains(self, value: Any) -> bool:
        """Return whether a value lies in the range, steps counted from the lower bound, or is one of the choices."""
        if self.choice is not None:
            return is_among(value, self.choice)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not self.low <= value <= self.high:
            return False
        step = self.step or (1 if self.kind == "int" else None)
        steps = 0.0 if step is None else (value - self.low) / step
        return abs(steps - round(steps)) < 1e-8

    def points(self) -> tuple[Any, ...]:
        """Return the values that a grid visits: the choices, or the stated points of a range."""
        return self.choice if self.choice is not None else self.grid or ()

    def n_values(self) -> int | None:
        """Return how many values a trial can have here; None for a continuous range."""
        if self.choice is not None:
            return len(self.choice)
        if self.low == self.high:
            return 1
        if self.kind == "float" and self.step is None:
            return None
        return int((Fraction(str(self.high)) - Fraction(str(self.low))) // Fraction(str(self.step or 1))) + 1

    def values(self) -> Sequence[Any]:
        """Return the values that a trial can have here, of which there are `n_values()`.

        Raises:
            ValueError: The range is continuous.
        """
        n_values = self.n_values()
        if n_values is None:
            raise ValueError(f"{self.range_text} has no finite number of values")
        if self.choice is not None:
            return self.choice
        if self.kind == "int":
            step = int(self.step or 1)
            return range(int(self.low), int(self.low) + n_values * step, step)
        low, step_exactly = Fraction(str(self.low)), Fraction(str(self.step or 1))
        return [float(low + i * step_exactly) for i in range(n_values)]

    @property
    def range_text(self) -> str:
        """The range as the file writes it."""
        if self.choice is not None:
            text = repr(list(self.choice))
            return f"choice {text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + '...'}"
        steps = "" if self.step is None else f" in steps of {self.step:g}"
        return f"{self.kind} [{_shown(self.low)}, {_shown(self.high)}]{steps}"

    def _unreachable_end(self) -> str:
        """Return what to say where steps from the lower bound pass by the upper one; empty where they meet it."""
        if self.choice is not None or self.step is None or not self.low <= self.high:
            return ""
        low, high, step = (Fraction(str(value)) for value in (self.low, self.high, self.step))
        last = low + (high - low) // step * step
        if last == high:
            return ""
        return (
            f"steps of {self.step:g} from {self.low:g} end at {float(last):g} and never reach {self.high:g}; "
            f"write {float(last):g} or {float(last) + self.step:g} as the upper bound, or another step"
        )

    def problems(self) -> list[tuple[str, str]]:
        """Return mistakes as (field, message)."""
        given = [
            name for name, v in (("float", self.float_), ("int", self.int_), ("choice", self.choice)) if v is not None
        ]
        if len(given) != 1:
            what = " and ".join(given) or "none of them"
            return [("", f"needs exactly one of float, int, choice; has {what}")]
        found: list[tuple[str, str]] = []
        if self.choice is not None:
            if not self.choice:
                found.append(("choice", "is empty; list the values: choice: [first, second]"))
            elif any(is_among(value, self.choice[:index]) for index, value in enumerate(self.choice)):
                found.append(("choice", "names a value twice; list each once"))
            for name, is_set in (("log", self.log), ("step", self.step is not None), ("grid", self.grid is not None)):
                if is_set:
                    found.append((name, "belongs to float and int ranges; a choice has none"))
            return found
        low, high, kind = self.low, self.high, self.kind
        if not (math.isfinite(low) and math.isfinite(high)):
            found.append((kind, f"[{low}, {high}] must be finite"))
        elif low > high:
            found.append((kind, f"[{low:g}, {high:g}]: the lower bound is above the upper; write [{high:g}, {low:g}]"))
        elif self.log and low <= 0:
            # Bounds such as [-4, -3] are the exponents that some tools take.
            values = f"; bounds are values, not exponents: [1e{low:g}, 1e{high:g}]" if -20 <= low < high <= 0 else ""
            found.append((kind, f"log: true needs a lower bound above 0, not {low:g}{values}"))
        if self.log and self.step is not None:
            found.append(("step", "cannot be combined with log: true"))
        if kind == "int" and self.step is not None and self.step != int(self.step):
            found.append(("step", f"{self.step:g} must be a whole number for an int range"))
        if not found and (message := self._unreachable_end()):
            found.append(("step", message))
        for value in self.grid or ():
            if not self.contains(value):
                found.append(("grid", f"{value!r} is outside {self.range_text}"))
        return found
