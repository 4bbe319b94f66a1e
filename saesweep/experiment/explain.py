"""pydantic's findings as messages that say what is there, what is expected, and where."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from saesweep.experiment.document import Place, show
from saesweep.messages import did_you_mean, nearest
from saesweep.specs import BaseRun
from saesweep.specs.architectures import StandardSpec, spec_class
from saesweep.specs.datasets import WeightedDatasetSpec
from saesweep.specs.logger import LoggerSpec
from saesweep.specs.synthetic import SyntheticSpec

KnownKeys = Callable[[Place], tuple[str, ...]]

_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "string_unicode": "text",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping of keys",
    "model_type": "a mapping of keys",
    "mapping_type": "a mapping of keys",
    "none_required": "null",
}
_LIMITS = {
    "greater_than": ("above", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("below", "lt"),
    "less_than_equal": ("at most", "le"),
}
_LENGTHS = {"string_too_short": ("at least", "min_length"), "string_too_long": ("at most", "max_length")}


def no_keys(_place: Place) -> tuple[str, ...]:
    """Stand for a caller that checks keys itself."""
    return ()


def explain(error: ValidationError, tree: Any, known_keys: KnownKeys) -> list[tuple[Place, str]]:
    """Return (place, message) for each mistake that pydantic found in `tree`.

    Args:
        error: What pydantic raised.
        tree: The data that it read, to tell the keys in its locations from the names of union members.
        known_keys: Returns the keys that the mapping at a place can have, for "did you mean".
    """
    grouped: dict[Place, list[ErrorDetails]] = {}
    for details in error.errors(include_url=False):
        grouped.setdefault(_place(details, tree), []).append(details)
    # Of a union with a list among its members, the items say what is wrong: the others would only say that it is a list.
    inner = {place[:-1] for place in grouped if place and isinstance(place[-1], int)}
    grouped = {p: g for p, g in grouped.items() if p not in inner or any(d["type"] not in _EXPECTED for d in g)}
    return [(place, _message(place, group, known_keys)) for place, group in grouped.items()]


def _place(details: ErrorDetails, tree: Any) -> Place:
    place: Place = ()
    node = tree
    for index, part in enumerate(details["loc"]):
        is_last = index == len(details["loc"]) - 1
        is_key = isinstance(node, dict) and isinstance(part, str) and part in node
        if is_key or (isinstance(node, list) and isinstance(part, int) and part < len(node)):
            node = node[part]
        elif is_last and details["type"] == "missing" and isinstance(node, dict) and isinstance(part, str):
            return (*place, part)
        else:
            continue  # the name of a union's member, or the index of a range written without a list
        place = (*place, part)
    return place


def _message(place: Place, group: list[ErrorDetails], known_keys: KnownKeys) -> str:
    first = group[0]
    value = first["input"]
    if value in ("None", "none", "nil") and first["type"] not in ("missing", "extra_forbidden"):
        return f"{value!r} is text in YAML; write null, or leave the key out for the default"
    if first["type"] == "missing":
        return "missing; it is required"
    if first["type"] == "extra_forbidden":
        return unknown_key(str(place[-1]), known_keys(place[:-1]))[0]
    for details in group:
        if details["type"] in _LIMITS:
            words, key = _LIMITS[details["type"]]
            return f"must be {words} {show(details['ctx'][key])}, not {show(value)}"
        if details["type"] in _LENGTHS:
            words, key = _LENGTHS[details["type"]]
            return f"must have a length of {words} {details['ctx'][key]}, not {len(value)}"
    for details in group:
        if details["type"] == "value_error":
            return str(details["ctx"]["error"])
    expected = []
    for details in group:
        if details["type"] == "literal_error":
            expected.append(str(details["ctx"]["expected"]))
        elif details["type"] in _EXPECTED:
            expected.append(_EXPECTED[details["type"]])
        else:
            expected.append(details["msg"])
    options = [word.strip("'") for text in expected for word in text.replace(" or ", ", ").split(", ")]
    hint = did_you_mean(value, options) if isinstance(value, str) else ""
    if isinstance(value, str) and "a number" in expected:
        hint = "; take the quotes off" if _is_number(value) else hint
        with_point = value.replace(",", ".")
        hint = f"; write {with_point}, with a point" if hint == "" and _is_number(with_point) else hint
    if isinstance(value, str) and "a whole number" in expected and value.strip().isdigit():
        hint = "; take the quotes off"
    if place == ("name",) and isinstance(value, (int, float)):
        hint = f"; put it in quotes: '{show(value)}'"
    return f"takes {' or '.join(dict.fromkeys(expected))}, not {show(value)}{hint}"


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def unknown_key(key: str, known: tuple[str, ...]) -> tuple[str, str | None]:
    """Return the message for a key that does not exist, and the key that was probably meant."""
    return f"unknown key {key!r}{did_you_mean(key, known) or _options(known)}", nearest(key, known)


def _options(known: tuple[str, ...]) -> str:
    return f"; known: {', '.join(known)}" if 0 < len(known) <= 12 else ""


def field_problems(path: str, value: Any, architecture: str) -> list[tuple[Place, str]]:
    """Return the field's own objections to a value, each with its place inside the value.

    Args:
        path: Dotted path of a field that exists.
        value: The value to try.
        architecture: The architecture whose field is meant, for `sae.` paths.
    """
    block, _, field = path.rpartition(".")
    tree = {field: value}
    try:
        if block == "sae":
            spec_class(architecture).model_validate(tree)
        elif block == "logger":
            LoggerSpec.model_validate(tree)
        elif block == "synthetic":
            SyntheticSpec.model_validate(tree)
        else:
            BaseRun.model_validate({**tree, "sae": StandardSpec()})
    except ValidationError as error:
        return [(place[1:], message) for place, message in explain(error, tree, _keys_inside) if place[:1] == (field,)]
    return []


def _keys_inside(place: Place) -> tuple[str, ...]:
    """Return the keys of a mapping inside a field's value."""
    return tuple(WeightedDatasetSpec.model_fields) if place[:1] == ("datasets",) else ()
