"""Text on its way to people: nothing in it steers a terminal, references stand for the values they were filled with, counts are short.

And what was probably meant by a word that is not known.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import quote, quote_plus

MAX_LINE = 2_000
"""Characters of one line of a message; what a file holds can be of any length."""
MAX_LINES = 400
_CONTROL = re.compile(
    # C0 but tab and newline, delete, C1; marks that reorder text; line breaks of Unicode alone.
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\u2028\u2029\ufeff]"
)
_MIN_ANYWHERE = 8
"""A value at least this long is replaced inside words too."""
_MIN_LENGTH = 4
"""Shorter values are ordinary words of a message."""

_references: dict[str, str] = {}
_paths: set[str] = set()


def remember(value: str, reference: str) -> None:
    """From now on show `reference` wherever a message would show `value`, however it is quoted there."""
    if len(value) < _MIN_LENGTH or value == reference:
        return
    for form in (
        value,
        repr(value)[1:-1],
        json.dumps(value)[1:-1],
        quote(value),
        quote(value, safe=""),
        quote_plus(value),
    ):
        _references.setdefault(form, reference)
    _pattern.cache_clear()


def keep_readable(path: str) -> None:
    """Show this path as it is, whatever is in it: it is part of commands that people copy."""
    _paths.add(path)
    _pattern.cache_clear()


def masked(text: str) -> str:
    """Return the text with references in place of the values that were remembered."""
    pattern = _pattern()
    return text if pattern is None else pattern.sub(lambda match: _references.get(match[0], match[0]), text)


@lru_cache(maxsize=1)
def _pattern() -> re.Pattern[str] | None:
    if not _references:
        return None
    known = sorted({*_references, *_paths}, key=len, reverse=True)
    return re.compile("|".join(_searched(form) for form in known))


def _searched(form: str) -> str:
    found = re.escape(form)
    return found if len(form) >= _MIN_ANYWHERE else rf"(?<!\w){found}(?!\w)"


def printable(text: str) -> str:
    """Return the text without characters that a terminal obeys (colours, the cursor, the title), written as escapes."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def shortened(text: str) -> str:
    """Return the text with endless lines, and endlessly many lines, cut."""
    lines = text.split("\n")
    left_out = len(lines) - MAX_LINES
    if left_out > 0:
        lines = [*lines[: MAX_LINES - 1], f"... ({left_out + 1} more lines)"]
    return "\n".join(
        line if len(line) <= MAX_LINE else f"{line[:MAX_LINE]}... ({len(line) - MAX_LINE} more characters)"
        for line in lines
    )


def presentable(text: str) -> str:
    """Return a message as people see it: masked, cut, and without control characters."""
    return printable(shortened(masked(text)))


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


def short_bytes(value: float) -> str:
    """Return an amount of memory with at most three significant digits: `640 KiB`, `12.3 MiB`, `550 MiB`, `1.29 GiB`."""
    for size, unit in ((1 << 10, "KiB"), (1 << 20, "MiB"), (1 << 30, "GiB")):
        scaled = value / size
        if scaled < 999.5 or unit == "GiB":
            decimals = 2 if scaled < 9.995 else 1 if scaled < 99.95 else 0
            return f"{scaled:.{decimals}f} {unit}"
    raise AssertionError("unreachable: every amount has a unit")


_ELSEWHERE = {
    **dict.fromkeys(("learning_rate", "max_lr", "optimizer_lr"), "lr"),
    **dict.fromkeys(
        ("dict_size", "dictionary_size", "d_dict", "d_hidden", "n_latents", "num_latents", "n_features"), "d_sae"
    ),
    **dict.fromkeys(("activation_fn", "activation_fn_str", "sae_type", "trainer"), "architecture"),
    **dict.fromkeys(("layer", "layer_name", "submodule_name", "hookpoint", "hookpoints"), "hook_name"),
    **dict.fromkeys(("l1_penalty", "l1_coeff", "l1_lambda"), "l1_coefficient"),
    **dict.fromkeys(("sparsity_penalty", "l0_lambda"), "l0_coefficient"),
    **dict.fromkeys(("warmup_steps", "lr_warmup"), "lr_warm_up_steps"),
    **dict.fromkeys(("total_tokens", "num_tokens", "n_tokens", "max_tokens"), "training_tokens"),
    **dict.fromkeys(("vanilla", "relu", "l1"), "standard"),
    **dict.fromkeys(("grid_search", "gridsampler", "brute"), "grid"),
    **dict.fromkeys(("fp16", "half"), "float16"),
    **dict.fromkeys(("fp32", "float"), "float32"),
}
"""Words of other tools (SAELens up to version 5, dictionary_learning, sparsify, Optuna) -> ours."""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word most like this one; for dotted paths, one whose last part is this word counts as near.

    A word that other tools have for it is nearer than one that only looks like it.
    """
    options = list(known)
    block, dot, name = word.rpartition(".")
    meant = f"{block}{dot}{_ELSEWHERE.get(name.lower(), name)}"
    if meant != word and meant in options:
        return meant
    close = difflib.get_close_matches(word, options, n=1, cutoff=0.6)
    if close:
        return close[0]
    lower = word.lower()
    begun = [option for option in options if option.lower() == lower or (len(word) > 3 and option.startswith(lower))]
    if begun:
        return begun[0]
    last = word.rsplit(".", 1)[-1]
    by_last = {option.rsplit(".", 1)[-1]: option for option in options}
    close = difflib.get_close_matches(last, by_last, n=1, cutoff=0.8)
    return by_last[close[0]] if close else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?`, or nothing where no known word is near."""
    match = nearest(word, known)
    return f"; did you mean {match!r}?" if match is not None else ""
