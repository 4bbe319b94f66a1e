"""Counts as people read them."""

from __future__ import annotations


def short_count(value: int) -> str:
    """Return a count with at most three significant digits: `950`, `12.3k`, `1.25M`, `2B`."""
    if value < 1000:
        return str(value)
    for size, suffix in ((10**3, "k"), (10**6, "M"), (10**9, "B"), (10**12, "T")):
        scaled = value / size
        if scaled < 999.5 or suffix == "T":
            decimals = 2 if scaled < 9.995 else 1 if scaled < 99.95 else 0
            text = f"{scaled:.{decimals}f}"
            return (text.rstrip("0").rstrip(".") if decimals else text) + suffix
    raise AssertionError("unreachable: every count has a suffix")
