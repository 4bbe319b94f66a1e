"""What is finished of a dataset that is being written: Arrow files named by the documents that they come from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from saesweep.activations.pretokenize.rows import Tokens
from saesweep.atomic import replace_file
from saesweep.errors import UserError

_NAME = re.compile(r"part-(\d+)-(\d+)-(\d+)-(\d+)\.arrow")


@dataclass(frozen=True)
class Part:
    """One finished file."""

    path: Path
    first: int
    """Its first document."""
    stop: int
    """The document after its last one."""
    rows: int
    skipped: int
    """Documents that could not be used."""


def finished_parts(folder: Path) -> list[Part]:
    """Return the finished files in order; one that does not join on to those before it is not counted."""
    found = []
    for path in folder.glob("part-*.arrow"):
        match = _NAME.fullmatch(path.name)
        if match is not None:
            found.append(Part(path, *(int(number) for number in match.groups())))
    parts: list[Part] = []
    for part in sorted(found, key=lambda part: part.first):
        if part.first == (parts[-1].stop if parts else 0):
            parts.append(part)
    return parts


def write_part(folder: Path, first: int, stop: int, rows: Sequence[Tokens], skipped: int) -> Part:
    """Write one part; it is whole or absent.

    Raises:
        UserError: The disk is full.
    """
    from datasets.arrow_writer import ArrowWriter

    rows_NT = np.concatenate(rows)
    path = folder / f"part-{first:012d}-{stop:012d}-{len(rows_NT)}-{skipped}.arrow"

    def fill(tmp: Path) -> None:
        with ArrowWriter(path=str(tmp), features=features()) as writer:
            writer.write_table(_table(rows_NT))
            writer.finalize()

    try:
        replace_file(path, fill)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error}). Nothing written before is lost: make room and run the same command again"
        ) from error
    return Part(path, first, stop, len(rows_NT), skipped)


def features() -> Any:
    """Return the dataset's one column."""
    import datasets

    return datasets.Features({"input_ids": datasets.List(datasets.Value("int32"))})


def _table(rows_NT: Tokens) -> Any:
    import pyarrow  # type: ignore[import-untyped]

    n_rows, size = rows_NT.shape
    offsets = np.arange(n_rows + 1, dtype=np.int32) * size
    lists = pyarrow.ListArray.from_arrays(pyarrow.array(offsets), pyarrow.array(rows_NT.reshape(-1)))
    return pyarrow.table({"input_ids": lists}, schema=features().arrow_schema)
