"""Token counts (`90M`) and durations (`1000` steps, `5Mtok`, `5%` of the run)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, GetPydanticSchema
from pydantic_core import core_schema

LARGEST = 2**63 - 1
"""What an integer of 64 bits holds: torch, NumPy and SQLite take no more."""
TOO_LARGE = f"is too large; whole numbers go up to {LARGEST}"

_SUFFIXES = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*(?:percent|per cent|pct)", re.IGNORECASE)
_COUNT = re.compile(r"(\d[\d_]*(?:\.\d+)?)\s*([kmbt]?)", re.IGNORECASE)
_WITH_UNIT = re.compile(r"(\d[\d_]*(?:\.\d+)?[kmbt]?)\s*(tok|tokens?|steps?)", re.IGNORECASE)


def parse_count(text: str) -> int:
    """Return the number that `90M`, `2B`, `1.5k` or `16_384` stands for.

    Raises:
        ValueError: The text is no count, or not a whole number of tokens.
    """
    match = _COUNT.fullmatch(text.strip())
    if match is None and (with_unit := _WITH_UNIT.fullmatch(text.strip())):
        raise ValueError(f"{text!r} is not a count; write {with_unit[1]}")
    if match is None:
        raise ValueError(f"{text!r} is not a count; write a whole number or one with k, M, B or T, such as 90M")
    # Decimal: 2.03 * 1000 is no whole number in floats.
    value = Decimal(match[1].replace("_", "")) * _SUFFIXES[match[2].lower()]
    if value != value.to_integral_value():
        raise ValueError(f"{text!r} is not a whole number")
    return _within(value)


def _within(value: float | Decimal) -> int:
    """Return a whole number that an integer of 64 bits holds.

    Raises:
        ValueError: It is larger.
    """
    if value > LARGEST:
        raise ValueError(f"{Decimal(value):.6g} {TOO_LARGE}")
    return int(value)


def format_count(value: int) -> str:
    """Return the short form of a count: `90M`, `1.5k`, `16384`."""
    for suffix, size in (("T", 10**12), ("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if size <= value < 1000 * size and (value * 100) % size == 0:
            return f"{value / size:g}{suffix}"  # at most five digits, so nothing is rounded
    return str(value)


def _to_count(value: Any) -> Any:
    if isinstance(value, str):
        return parse_count(value)
    if isinstance(value, float) and value.is_integer():  # 2e6 is a float in YAML
        return _within(value)
    return value


TokenCount = Annotated[int, BeforeValidator(_to_count, json_schema_input_type=int | str)]
"""A whole number, also written `90M`, `2B`, `500k`."""

Unit = Literal["steps", "tokens", "fraction"]


@dataclass(frozen=True)
class Duration:
    """A length of training in steps (`1000`), tokens (`5Mtok`) or as a fraction of the run (`5%`)."""

    value: float
    unit: Unit = "steps"

    @classmethod
    def parse(cls, raw: Any) -> Duration:
        """Read an int (steps), `5%` (a fraction of the run) or `5Mtok` (tokens).

        Raises:
            ValueError: None of these, or negative, or above 100 %.
        """
        if isinstance(raw, Duration):
            return raw
        if isinstance(raw, bool) or not isinstance(raw, (int, float, str)):
            raise ValueError(
                f"{raw!r} is not a duration; write steps (1000), tokens (5Mtok) or a share of the run (5%)"
            )
        if isinstance(raw, str):
            text = raw.strip()
            if text.endswith("%"):
                try:
                    share = float(text[:-1]) / 100
                except ValueError:
                    raise ValueError(f"{raw!r} is not a percentage") from None
                if not 0 <= share <= 1:
                    raise ValueError(f"{raw!r} is outside 0% to 100%")
                return cls(share, "fraction")
            if match := _PERCENT.fullmatch(text):
                raise ValueError(f"{raw!r}: write a share of the run as {match[1]}%")
            if (unit := _WITH_UNIT.fullmatch(text)) and not text.endswith("tok"):
                raise ValueError(
                    f"{raw!r} is not a duration; write {unit[1]}{'' if unit[2].lower().startswith('step') else 'tok'}"
                )
            count = text.removesuffix("tok").strip()
            if _COUNT.fullmatch(count) is None:
                raise ValueError(
                    f"{raw!r} is not a duration; write steps (1000), tokens (5Mtok) or a share of the run (5%)"
                )
            return cls(float(parse_count(count)), "tokens" if text.endswith("tok") else "steps")
        if raw < 0 or raw != _within(raw):
            raise ValueError(f"{raw!r} is not a whole number of steps >= 0; a share of the run is written 5%")
        return cls(float(raw), "steps")

    def to_steps(self, total_steps: int, batch_tokens: int) -> int:
        """Return the whole number of steps in a run of `total_steps` batches of `batch_tokens` tokens."""
        if self.unit == "fraction":
            return round(self.value * total_steps)
        if self.unit == "tokens":
            return round(self.value / batch_tokens)
        return int(self.value)

    def to_json(self) -> int | str:
        """Return the form that `parse` reads back."""
        if self.unit == "fraction":
            return f"{self.value * 100:.12g}%"
        if self.unit == "tokens":
            return f"{int(self.value)}tok"
        return int(self.value)

    def __str__(self) -> str:
        return str(self.to_json())


def _duration_schema(_source: Any, _handler: Any) -> core_schema.CoreSchema:
    return core_schema.no_info_before_validator_function(
        Duration.parse,
        core_schema.is_instance_schema(Duration),
        json_schema_input_schema=core_schema.union_schema([core_schema.int_schema(ge=0), core_schema.str_schema()]),
        serialization=core_schema.plain_serializer_function_ser_schema(Duration.to_json),
    )


Steps = Annotated[Duration, GetPydanticSchema(_duration_schema)]
"""A duration that is a number of steps when written bare: `1000`, `5Mtok` or `5%`."""


_SECONDS = {"": 1, "s": 1, "min": 60, "h": 3600, "d": 86400}
_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|h|d)?")
_MULTIPLE = re.compile(r"(\d+(?:\.\d+)?)x")


def _to_seconds(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    match = _TIME.fullmatch(value.strip())
    if match is None:
        raise ValueError(f"{value!r} is not a time; write seconds, or a number with s, min, h or d, such as 2h")
    return float(match[1]) * _SECONDS[match[2] or ""]


Seconds = Annotated[float, BeforeValidator(_to_seconds, json_schema_input_type=float | str)]
"""A time in seconds, also written `30min`, `2h`, `1d`."""


def _to_tokens_or_multiple(value: Any) -> Any:
    if isinstance(value, str) and _MULTIPLE.fullmatch(value.strip()):
        if multiple_of(value) == 0:
            raise ValueError(f"{value!r} is no training at all")
        _within(multiple_of(value))
        return value.strip()
    count = _to_count(value)
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"{value!r} is neither a token count nor a multiple such as 4x")
    return count


def multiple_of(text: str) -> float:
    """Return the factor that `4x` stands for."""
    return float(text.strip().removesuffix("x"))


TokensOrMultiple = Annotated[int | str, BeforeValidator(_to_tokens_or_multiple, json_schema_input_type=int | str)]
"""A token count, or a multiple of another one: `90M`, `4x`."""


def _to_slice(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _check_slice(value: tuple[int | None, ...]) -> tuple[int | None, ...]:
    if not 1 <= len(value) <= 3:
        raise ValueError("takes one to three numbers or nulls, as Python's slice does")
    if len(value) == 3 and value[2] is not None and value[2] < 1:
        raise ValueError(f"the step {value[2]} must be at least 1")
    return value


Positions = Annotated[tuple[int | None, ...], BeforeValidator(_to_slice), AfterValidator(_check_slice)]
"""The arguments of a slice: `[stop]`, `[start, stop]` or `[start, stop, step]`, negative ones counted from the end."""


def _to_dtype(value: Any) -> Any:
    return value.removeprefix("torch.") if isinstance(value, str) else value


DType = Annotated[Literal["float32", "float64", "bfloat16", "float16"], BeforeValidator(_to_dtype)]
"""A floating-point type; `torch.float32`, as older files of SAELens spell it, is read as `float32`."""
