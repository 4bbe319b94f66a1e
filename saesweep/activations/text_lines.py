"""Text files with one document a line, read by position: neither held in memory nor copied to a cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from saesweep.activations.documents import Document, MapDocuments
from saesweep.activations.keys import Indices
from saesweep.errors import UserError

_BLOCK_BYTES = 1 << 24


def open_text_lines(name: str, files: Sequence[Path]) -> MapDocuments:
    """Return every line of UTF-8 files that is not blank as a document, in the order of the files.

    Raises:
        UserError: There is no such line, or a line is not UTF-8.
    """
    starts_by_file = [_line_starts(file) for file in files]
    first_of_file = np.cumsum([0, *(len(starts) - 1 for starts in starts_by_file)])

    def read_line(index: int) -> str:
        number = int(np.searchsorted(first_of_file, index, side="right")) - 1
        starts = starts_by_file[number]
        line = index - int(first_of_file[number])
        with files[number].open("rb") as file:
            file.seek(int(starts[line]))
            raw = file.read(int(starts[line + 1] - starts[line]))
        try:
            text = raw.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise UserError(
                f"base.dataset_path: line {line + 1} of {files[number]} is not UTF-8 ({error.reason})"
            ) from None
        return text if text.strip() else ""

    def read(indices: Sequence[int]) -> list[Document]:
        return [read_line(int(index)) for index in indices]

    size = int(first_of_file[-1])
    # Blank lines stay in the index and give empty documents, which packing skips; a file of nothing else is empty.
    if not any(read_line(index) for index in range(size)):
        raise UserError(f"base.dataset_path: {name} is empty; give text files with one document a line")
    return MapDocuments(name=name, size=size, read=read, is_tokenized=False)


def _line_starts(file: Path) -> Indices:
    """Byte offsets of the lines, and the file's size as the last entry."""
    ends = [np.zeros(1, dtype=np.int64)]
    position = 0
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            ends.append(np.flatnonzero(np.frombuffer(block, dtype=np.uint8) == ord("\n")) + position + 1)
            position += len(block)
    starts = np.concatenate(ends)
    return starts if starts[-1] == position else np.append(starts, position)
