"""YAML 1.2 core scalars: `1e-4` is a number, `no` is text, `010` is ten. YAML 1.1, PyYAML's default, says otherwise."""

from __future__ import annotations

import re

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE = frozenset({"true", "True", "TRUE"})
_FALSE = frozenset({"false", "False", "FALSE"})
_DECIMAL = re.compile(r"[-+]?[0-9]+(_[0-9]+)*")
_OCTAL = re.compile(r"0o[0-7]+")
_HEX = re.compile(r"0x[0-9a-fA-F]+")
_DIGITS = r"[0-9]+(?:_[0-9]+)*"
_FLOAT = re.compile(rf"[-+]?(?:\.[0-9]+|{_DIGITS}(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_MAX_DIGITS = 100


def is_null(text: str) -> bool:
    """Return whether an unquoted YAML scalar is null."""
    return text.strip() in _NULL


def parse_scalar(text: str) -> bool | int | float | str | None:
    """Return the value of an unquoted YAML scalar.

    Raises:
        ValueError: A number that is not finite, or with more digits than any setting has.
    """
    if text in _NULL:
        return None
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    if _NOT_FINITE.fullmatch(text):
        raise ValueError(f"{text} is not a finite number; leave the key out for no limit")
    for pattern, base in ((_DECIMAL, 10), (_OCTAL, 8), (_HEX, 16)):
        if pattern.fullmatch(text):
            if len(text) > _MAX_DIGITS:
                raise ValueError(f"a number of {len(text)} digits; quote it if it is text")
            return int(text.replace("_", ""), base)
    if _FLOAT.fullmatch(text):
        value = float(text.replace("_", ""))
        if value in (float("inf"), float("-inf")):
            raise ValueError(f"{text} is too large for a number; quote it if it is text")
        return value
    return text
