"""Held-out parts, taken by document before packing: no held-out text is ever trained on."""

# Shape suffix legend: N = contexts, T = tokens per context

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saesweep.activations.documents import Document, Documents, MapDocuments, StreamDocuments
from saesweep.activations.encoding import encode_documents, note_refused
from saesweep.activations.keys import Indices, key_permutation
from saesweep.activations.packing import Packer, Packing
from saesweep.activations.unreadable import UnreadableRows
from saesweep.activity import doing
from saesweep.errors import UserError

READ_DOCUMENTS = 64
"""Documents read and tokenised at a time."""
SHUFFLE_DOCUMENTS = 1024
"""Documents of a stream that are shuffled among themselves."""


@dataclass(frozen=True)
class TrainDocuments:
    """The documents that are not held out, in an order per epoch."""

    documents: Documents
    seed: int
    first: int
    """Position of the first one: in the split's permutation, or in the stream."""

    def iterate(self, epoch: int, start: int) -> Iterator[Document]:
        """Yield the documents of an epoch from position `start` on.

        Random-access documents are permuted by (seed, epoch), a stream's within blocks of `SHUFFLE_DOCUMENTS`.
        """
        if isinstance(self.documents, StreamDocuments):
            yield from self._shuffled_blocks(self.documents, epoch, start)
            return
        indices = key_permutation(self.documents.size, self.seed, "split")[self.first :]
        order = indices[key_permutation(len(indices), self.seed, "epoch", epoch)]
        yield from _read_in_order(self.documents, order[start:])

    def _shuffled_blocks(self, documents: StreamDocuments, epoch: int, start: int) -> Iterator[Document]:
        # Blocks, and no sliding buffer, so that any position can be reached again by reading one block.
        first_block = start // SHUFFLE_DOCUMENTS
        remaining = documents.iterate(self.first + first_block * SHUFFLE_DOCUMENTS)
        for number in itertools.count(first_block):
            block = list(itertools.islice(remaining, SHUFFLE_DOCUMENTS))
            if not block:
                return
            order = key_permutation(len(block), self.seed, "epoch", epoch, number)
            skipped = start - number * SHUFFLE_DOCUMENTS if number == first_block else 0
            yield from (block[index] for index in order[skipped:])


@dataclass(frozen=True)
class Split:
    """The three parts of a dataset."""

    select_NT: Tensor
    """Contexts of the part that rungs and the ranking use, int64."""
    test_NT: Tensor
    """Contexts of the part that is read once, int64."""
    train: TrainDocuments
    """Everything else."""


def split_documents(
    documents: Documents,
    tokenizer: Any,
    packing: Packing,
    *,
    select_tokens: int,
    test_tokens: int,
    seed: int,
    held_out: tuple[Documents, Packing] | None = None,
) -> Split:
    """Take whole documents until `select_tokens`, then others until `test_tokens`, are filled; the rest trains.

    Random-access documents are taken in the order of a permutation keyed by `seed`, a stream's in its order. Each part
    has the fewest contexts that hold its tokens. Without `test_tokens` the split is for measuring alone, and nothing
    need be left to train on.

    Args:
        documents: The dataset.
        tokenizer: The model's.
        packing: How documents become contexts.
        select_tokens: Tokens of the part that rungs and the ranking use.
        test_tokens: Tokens of the part that is read once.
        seed: Key of the permutation.
        held_out: Another dataset that both parts are taken from, and its packing: then every document trains.

    Raises:
        UserError: The dataset is too small for both parts and training.
    """
    if held_out is not None:
        apart, packing = held_out
        (select_NT, test_NT), _ = _parts(apart, tokenizer, packing, select_tokens, test_tokens, seed, trains=False)
        return Split(select_NT, test_NT, TrainDocuments(documents, seed, 0))
    (select_NT, test_NT), taken = _parts(
        documents, tokenizer, packing, select_tokens, test_tokens, seed, trains=test_tokens > 0
    )
    if test_tokens and isinstance(documents, MapDocuments) and taken == documents.size:
        raise UserError(
            f"evaluation: select_tokens ({select_tokens}) and test_tokens ({test_tokens}) take all "
            f"{documents.size} documents of {documents.name}; lower them or use a larger dataset"
        )
    return Split(select_NT, test_NT, TrainDocuments(documents, seed, taken))


def _parts(
    documents: Documents,
    tokenizer: Any,
    packing: Packing,
    select_tokens: int,
    test_tokens: int,
    seed: int,
    *,
    trains: bool,
) -> tuple[list[Tensor], int]:
    """Return the parts `select` and `test`, and how many documents they took; training needs the rest where it `trains`."""
    remaining: Iterator[Document]
    if isinstance(documents, MapDocuments):
        remaining = _read_in_order(documents, key_permutation(documents.size, seed, "split"))
    else:
        remaining = documents.iterate(0)
    taker = _Taker(remaining, tokenizer, packing, documents.unreadable)
    parts: list[Tensor] = []
    for name, tokens in (("select_tokens", select_tokens), ("test_tokens", test_tokens)):
        wanted = -(-tokens // packing.context_size)
        contexts = taker.take(wanted)
        if len(contexts) < wanted and not trains:
            raise UserError(
                f"evaluation.{name}: {documents.name} ends after {taker.n_documents} documents ({taker.n_tokens} "
                f"tokens), before {tokens} tokens are filled; lower it or use a larger dataset"
            )
        if len(contexts) < wanted:
            raise UserError(
                f"evaluation.{name}: {documents.name} ends after {taker.n_documents} documents "
                f"({taker.n_tokens} tokens), before select_tokens ({select_tokens}) and test_tokens ({test_tokens}) are "
                "filled, and training needs the rest; lower both or use a larger dataset"
            )
        parts.append(torch.from_numpy(np.asarray(contexts, dtype=np.int64).reshape(wanted, packing.context_size)))
    return parts, taker.n_documents


class _Taker:
    """Reads documents one after the other and counts them."""

    def __init__(
        self, remaining: Iterator[Document], tokenizer: Any, packing: Packing, unreadable: UnreadableRows
    ) -> None:
        self._encoded = encode_in_blocks(tokenizer, remaining, unreadable, packing.n_token_ids)
        self._packing = packing
        self.n_documents = 0
        self.n_tokens = 0

    def take(self, n_contexts: int) -> list[list[int]]:
        """Return up to `n_contexts` contexts from the next documents; the rest of the last one is dropped."""
        packer = Packer(self._packing)
        contexts: list[list[int]] = []
        while len(contexts) < n_contexts:
            doing("tokenising the held-out text", len(contexts), n_contexts)
            tokens = next(self._encoded, None)
            if tokens is None:
                break
            self.n_documents += 1
            self.n_tokens += len(tokens)
            contexts.extend(context for context, _ in packer.pack(tokens))
        return contexts[:n_contexts]


def encode_in_blocks(
    tokenizer: Any, documents: Iterator[Document], unreadable: UnreadableRows, n_token_ids: int | None
) -> Iterator[Sequence[int]]:
    """Yield the token ids of documents, tokenised `READ_DOCUMENTS` at a time."""
    while block := list(itertools.islice(documents, READ_DOCUMENTS)):
        yield from encode_documents(tokenizer, block, note_refused(unreadable), n_token_ids=n_token_ids)


def _read_in_order(documents: MapDocuments, order: Indices) -> Iterator[Document]:
    for start in range(0, len(order), READ_DOCUMENTS):
        yield from documents.read(order[start : start + READ_DOCUMENTS].tolist())
