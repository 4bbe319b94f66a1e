"""Which rows of which dataset: the fields that a run and `pretokenize` share, and what a split's text means of local files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from saesweep.errors import UserError
from saesweep.messages import did_you_mean

if TYPE_CHECKING:
    from saesweep.specs.base_run import BaseRun
    from saesweep.specs.pretokenize import PretokenizeSpec


@dataclass(frozen=True, kw_only=True)
class Selection:
    """A dataset and the part of it that is meant; the fields have the meaning of SAELens' `PretokenizeRunnerConfig`."""

    path: str
    """`dataset_path`: Hub id, local file, folder or glob, `builtin:python-docs`."""
    name: str | None = None
    """`dataset_name`: the configuration."""
    split: str = "train"
    """Names of splits, each with a slice at will: `train`, `train[:10%]`, `train+validation`."""
    data_files: tuple[str, ...] | None = None
    """Only these files (or globs) of the dataset."""
    data_dir: str | None = None
    """Only this folder of the dataset."""
    streaming: bool = False
    """Read through the `datasets` library as a stream."""
    block: str = ""
    """What the fields are named after in messages: such as `base.`."""

    @classmethod
    def of_run(cls, run: BaseRun, block: str) -> Selection:
        """Return what a run reads, its fields named after this block of the file."""
        return cls._of(run, block)

    @classmethod
    def of_pretokenize(cls, spec: PretokenizeSpec) -> Selection:
        """Return what `pretokenize` reads."""
        return cls._of(spec, "")

    @classmethod
    def _of(cls, fields: BaseRun | PretokenizeSpec, block: str) -> Selection:
        return cls(
            path=fields.dataset_path,
            name=fields.dataset_name,
            split=fields.split,
            data_files=fields.data_files,
            data_dir=fields.data_dir,
            streaming=fields.streaming,
            block=block,
        )

    @property
    def split_names(self) -> list[str]:
        """The splits that are read, without their slices."""
        return [part.partition("[")[0].strip() for part in self.split.split("+")]

    @property
    def is_sliced(self) -> bool:
        """Whether only a slice of a split is read."""
        return "[" in self.split

    def mistake(self, field: str, message: str) -> UserError:
        """Return the error that names a field of this selection."""
        return UserError(f"{self.block}{field}: {message}")

    def unknown(self, field: str, value: str, known: Iterable[str]) -> UserError:
        """Return the error about a name that is not there, with those that are and the nearest."""
        what = {"split": "split", "dataset_name": "configuration", "data_files": "file"}[field]
        names = sorted(known)
        some = names if len(names) <= _MAX_NAMES else [*names[:_MAX_NAMES], f"... {len(names)} in all"]
        hint = did_you_mean(value, names)
        return self.mistake(field, f"{self.path} has no {what} {value!r}{hint}; there is {', '.join(some) or 'none'}")

    def empty(self) -> UserError:
        """Return the error about a selection without rows."""
        if self.split == "train":
            return self.mistake("dataset_path", f"{self.path} is empty; give a dataset with at least one document")
        return self.mistake("split", f"{self.split!r} of {self.path} is empty; choose another one or a larger slice")

    def refuse(self, kind: str, *fields: str) -> None:
        """Refuse fields that mean nothing for this kind of dataset.

        Raises:
            UserError: One of them is given.
        """
        given = {"dataset_name": self.name, "data_files": self.data_files, "data_dir": self.data_dir}
        for field in fields:
            if given[field] is not None:
                raise self.mistake(field, f"{self.path} is {kind}, which has nothing of that kind; leave it out")

    def check_splits(self, known: Iterable[str]) -> None:
        """Refuse a split that does not exist.

        Raises:
            UserError: One of the names is not known.
        """
        names = list(known)
        for name in self.split_names:
            if name not in names:
                raise self.unknown("split", name, names)


_MAX_NAMES = 20


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
