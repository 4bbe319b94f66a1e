"""Did you mean."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word most like this one; for dotted paths, one whose last part is this word counts as near."""
    options = list(known)
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
