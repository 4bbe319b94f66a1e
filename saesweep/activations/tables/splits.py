"""Splits of local data: which one a file belongs to, and which rows a split's text means."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from saesweep.activations.tables.selection import Selection
from saesweep.errors import UserError

TRAIN = "train"
_KEYWORDS = {
    TRAIN: ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""As the `datasets` library reads names of files and folders."""
_PATTERNS = {
    split: re.compile(rf"(^|[-._ 0-9/])({'|'.join(words)})([-._ 0-9/]|$)", re.IGNORECASE)
    for split, words in _KEYWORDS.items()
}
_SHARD = re.compile(r"(?:^|/)(\w+)-\d{5}-of-\d{5}\.")


def split_of(file: Path, folder: Path) -> str:
    """Return the split that a file in a dataset's folder belongs to, by its name: `train` where it says nothing."""
    name = file.relative_to(folder).as_posix()
    for split, pattern in _PATTERNS.items():
        if pattern.search(name):
            return split
    shard = _SHARD.search(name)
    return TRAIN if shard is None else shard.group(1)


def rows_of_split(selection: Selection, sizes: Mapping[str, int]) -> NDArray[np.int64]:
    """Return the rows that a selection's split means, where the splits' rows are numbered one after the other.

    Args:
        selection: Its splits must exist.
        sizes: Rows of every split, in the order of the numbers.

    Raises:
        UserError: The slice cannot be read.
    """
    starts = dict(zip(sizes, np.cumsum([0, *sizes.values()])[:-1].tolist(), strict=True))
    if not selection.is_sliced:
        pieces = [(name, 0, sizes[name]) for name in selection.split_names]
    else:
        from datasets import ReadInstruction

        try:
            instructions = ReadInstruction.from_spec(selection.split).to_absolute(dict(sizes))
        except (ValueError, AssertionError) as error:
            raise bad_slice(selection, error) from None
        pieces = [(each.splitname, each.from_ or 0, each.to or 0) for each in instructions]
    return np.concatenate([np.arange(starts[name] + begin, starts[name] + end) for name, begin, end in pieces])


def bad_slice(selection: Selection, error: Exception) -> UserError:
    """Return the error about a slice that cannot be read."""
    return selection.mistake("split", f"{selection.split!r} is no slice such as train[:10%] or train[1000:]: {error}")
