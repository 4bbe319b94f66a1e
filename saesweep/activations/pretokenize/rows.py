"""From one column of a dataset, read in order from any position, to packed rows of token ids.

Shape suffixes: N = rows, T = tokens per row.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saesweep import builtin
from saesweep.activations.columns import Document, as_conversation, as_text, check_column
from saesweep.activations.encoding import encode_documents, special_token
from saesweep.activations.packing import Packer, Packing
from saesweep.activations.tables import Selection, Unreadable, open_table
from saesweep.activations.unreadable import UnreadableRow, UnreadableRows
from saesweep.errors import UserError, first_line
from saesweep.models.pretrained import quiet
from saesweep.specs.pretokenize import PretokenizeSpec

_SAMPLE_ROWS = 256


@dataclass(frozen=True, kw_only=True)
class Cells:
    """A column of a dataset."""

    size: int | None
    """Number of rows; None for a stream."""
    iterate: Callable[[int], Iterator[Any]]
    """The cells from this row on: text, a conversation, None, or `Unreadable`."""
    notes: tuple[str, ...]
    """What the user should know about how it was opened."""


def open_cells(spec: PretokenizeSpec) -> Cells:
    """Open the dataset's split and column, and look at its first rows.

    Raises:
        UserError: It cannot be had, has no such column, or most of its rows cannot be used.
    """
    table = open_table(Selection.of_pretokenize(spec))
    column = spec.column_name
    check_column("", spec.dataset_path, column, table.first)
    unreadable, seen = UnreadableRows(spec.dataset_path, "dataset_path"), 0
    for row, cell in enumerate(islice(table.iterate(0, column), _SAMPLE_ROWS)):
        seen += 1
        try:
            document_of(spec, cell)
        except UnreadableRow as error:
            unreadable.add(row, str(error) if isinstance(cell, Unreadable) else f"row {row}: {error}")
    unreadable.check_sample(seen)
    return Cells(size=table.size, iterate=lambda start: table.iterate(start, column), notes=table.notes)


def document_of(spec: PretokenizeSpec, cell: Any) -> Document:
    """Return a cell as a document.

    Raises:
        UnreadableRow: It is neither text nor, with chat formatting, a conversation.
    """
    return as_conversation(spec.column_name, cell) if spec.use_chat_formatting else as_text(spec.column_name, cell)


Tokens = NDArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class PackedBatch:
    """The rows of one batch of documents; batches are packed each on its own, as in SAELens."""

    documents: int
    """Documents read."""
    skipped: int
    """Documents that could not be used: empty, or unreadable."""
    rows_NT: Tokens


def read_tokenizer(spec: PretokenizeSpec) -> Any:
    """Return the tokenizer.

    Raises:
        UserError: It cannot be had, or it has no chat template and one is asked for.
    """
    from transformers import AutoTokenizer

    name = spec.tokenizer_name
    source = str(builtin.model_path()) if name == builtin.MODEL_NAME else str(Path(name).expanduser())
    is_local = Path(source).is_dir()
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(
                source if is_local else name, local_files_only=is_local, trust_remote_code=False
            )
    except (OSError, ValueError) as error:
        reason = first_line(error).rstrip(".")
        raise UserError(f"tokenizer_name: {name!r} could not be downloaded or read: {reason}") from error
    if spec.use_chat_formatting and not tokenizer.chat_template:
        raise UserError(f"use_chat_formatting: the tokenizer {name!r} has no chat template; leave it out")
    return tokenizer


def pack_documents(spec: PretokenizeSpec, tokenizer: Any, cells: Sequence[Any]) -> PackedBatch:
    """Tokenise the documents of cells and pack them into rows; what cannot be used is counted."""
    documents = _usable(spec, cells)
    packing = Packing(
        context_size=spec.context_size,
        begin_token=special_token(tokenizer, spec.begin_batch_token),
        separator_token=special_token(tokenizer, spec.sequence_separator_token),
        begin_sequence_token=special_token(tokenizer, spec.begin_sequence_token),
        concatenate=not spec.disable_concat_sequences,
        is_tokenized=False,
    )
    packer = Packer(packing)
    # SAELens' PretokenizeRunner keeps what the tokenizer adds (its training on text does not): equal rows.
    # A refused document has no tokens, and is counted by that.
    encoded = encode_documents(tokenizer, documents, lambda document, reason: None, with_special_tokens=True)
    rows = [row for tokens in encoded for row, _ in packer.pack(tokens)]
    rows_NT = np.asarray(rows, dtype=np.int32).reshape(len(rows), spec.context_size)
    return PackedBatch(documents=len(cells), skipped=len(cells) - sum(map(bool, encoded)), rows_NT=rows_NT)


def _usable(spec: PretokenizeSpec, cells: Sequence[Any]) -> list[Document]:
    documents = []
    for cell in cells:
        try:
            document = document_of(spec, cell)
        except UnreadableRow:
            continue
        if document or isinstance(
            document, str
        ):  # of an empty text the tokenizer may make BOS, which SAELens packs too
            documents.append(document)
    return documents


def packed_batches(spec: PretokenizeSpec, tokenizer: Any, cells: Iterator[Any]) -> Iterator[PackedBatch]:
    """Yield the packed batches in the order of the documents, whatever `num_proc` is."""
    batches = iter(lambda: list(islice(cells, spec.pretokenize_batch_size)), [])
    if spec.num_proc == 1:
        for documents in batches:
            yield pack_documents(spec, tokenizer, documents)
        return
    import multiprocessing

    # spawn: a fork of a process with the tokenizer's threads can hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(spec.num_proc, mp_context=context, initializer=_start, initargs=(spec,)) as pool:
        waiting: deque[Future[PackedBatch]] = deque()
        try:
            for documents in batches:
                waiting.append(pool.submit(_pack_here, documents))
                if len(waiting) > 2 * spec.num_proc:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


_worker: tuple[PretokenizeSpec, Any] | None = None
"""The specification and tokenizer of this worker process."""


def _start(spec: PretokenizeSpec) -> None:
    global _worker
    _worker = spec, read_tokenizer(spec)


def _pack_here(documents: Sequence[Any]) -> PackedBatch:
    assert _worker is not None
    return pack_documents(*_worker, documents)
