"""Held-out parts, taken by document before packing: no held-out text is ever trained on."""

# Shape suffix legend: N = contexts, T = tokens per context

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saesweep.activations.columns import Document
from saesweep.activations.documents import Documents, MapDocuments, StreamDocuments
from saesweep.activations.encoding import encode_documents, note_refused
from saesweep.activations.keys import Indices, key_permutation
from saesweep.activations.packing import Packer
from saesweep.activations.shares import Shares
from saesweep.activations.texts import Text
from saesweep.activations.unreadable import UnreadableRows
from saesweep.activity import doing
from saesweep.errors import UserError

READ_DOCUMENTS = 64
"""Documents read and tokenised at a time."""
SHUFFLE_DOCUMENTS = 1024
"""Documents of a stream that are shuffled among themselves."""

_MORE_DATA = "lower both, use a larger dataset, or split its documents: each goes to one part whole"


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
    """The three parts of a run's data."""

    select_NT: Tensor
    """Contexts of the part that rungs and the ranking use, int64."""
    test_NT: Tensor
    """Contexts of the part that is read once, int64."""
    train: tuple[TrainDocuments, ...]
    """Everything else, by dataset."""


def split_documents(
    texts: Sequence[Text],
    tokenizer: Any,
    *,
    select_tokens: int,
    test_tokens: int,
    seed: int,
    held_out: Text | None = None,
) -> Split:
    """Take whole documents until `select_tokens`, then others until `test_tokens`, are filled; the rest trains.

    Random-access documents are taken in the order of a permutation keyed by `seed`, a stream's in its order. Each part
    has the fewest contexts that hold its tokens; of a mixture, any first contexts of a part hold every dataset by its
    share. Without `test_tokens` the split is for measuring alone, and nothing need be left to train on.

    Args:
        texts: The datasets.
        tokenizer: The model's.
        select_tokens: Tokens of the part that rungs and the ranking use.
        test_tokens: Tokens of the part that is read once.
        seed: Key of the permutation.
        held_out: Another dataset that both parts are taken from: then every document trains.

    Raises:
        UserError: A dataset is too small for its share of both parts and training.
    """
    trains = held_out is None and test_tokens > 0
    takers = [_DocumentReader(text, tokenizer, seed) for text in (texts if held_out is None else [held_out])]
    sizes = {"select_tokens": select_tokens, "test_tokens": test_tokens}
    select_NT, test_NT = (_part(takers, name, sizes, trains) for name in sizes)
    if held_out is not None:
        return Split(select_NT, test_NT, tuple(TrainDocuments(text.documents, seed, 0) for text in texts))
    for documents, taken in ((taker.text.documents, taker.n_documents) for taker in takers):
        if trains and isinstance(documents, MapDocuments) and taken == documents.size:
            raise UserError(
                f"evaluation: select_tokens ({select_tokens}) and test_tokens ({test_tokens}) take all "
                f"{documents.size} documents of {documents.name}; {_MORE_DATA}"
            )
    train = tuple(TrainDocuments(taker.text.documents, seed, taker.n_documents) for taker in takers)
    return Split(select_NT, test_NT, train)


def _part(takers: Sequence[_DocumentReader], name: str, sizes: dict[str, int], trains: bool) -> Tensor:
    """Return the contexts of the part `name`, int64 [N,T]; training needs what is left where it `trains`."""
    size = takers[0].text.packing.context_size
    n_contexts = -(-sizes[name] // size)
    shares = Shares([taker.text.share for taker in takers], size)
    for taker in takers:
        taker.begin_part()
    contexts: list[list[int]] = []
    while len(contexts) < n_contexts:
        doing("tokenising the held-out text", len(contexts), n_contexts)
        chosen = shares.choose()
        taker = takers[chosen]
        context = taker.next_context()
        if context is None:
            ends = (
                f"evaluation.{name}: {taker.text.documents.name} ends after {taker.n_documents} documents "
                f"({taker.n_tokens} tokens), before "
            )
            share = "" if len(takers) == 1 else f"its share of {taker.text.share:.3g} of "
            if not trains:
                raise UserError(f"{ends}{share}{sizes[name]} tokens are filled; lower it or use a larger dataset")
            raise UserError(
                f"{ends}{share}select_tokens ({sizes['select_tokens']}) and test_tokens ({sizes['test_tokens']}) are "
                f"filled, and training needs the rest; {_MORE_DATA}"
            )
        shares.note(chosen, context)
        contexts.append(context)
    return torch.from_numpy(np.asarray(contexts, dtype=np.int64).reshape(n_contexts, size))


class _DocumentReader:
    """Reads the documents of a dataset one after the other and counts them."""

    def __init__(self, text: Text, tokenizer: Any, seed: int) -> None:
        self.text = text
        documents = text.documents
        remaining = (
            _read_in_order(documents, key_permutation(documents.size, seed, "split"))
            if isinstance(documents, MapDocuments)
            else documents.iterate(0)
        )
        self._encoded = encode_in_blocks(tokenizer, remaining, documents.unreadable, text.packing.n_token_ids)
        self.n_documents = 0
        self.n_tokens = 0
        self.begin_part()

    def begin_part(self) -> None:
        """Drop the rest of the latest document: the next context begins with another one."""
        self._packer = Packer(self.text.packing)
        self._ready: deque[list[int]] = deque()

    def next_context(self) -> list[int] | None:
        """Return the next context; None where the documents have come to their end."""
        while not self._ready:
            tokens = next(self._encoded, None)
            if tokens is None:
                return None
            self.n_documents += 1
            self.n_tokens += len(tokens)
            self._ready.extend(context for context, _ in self._packer.pack(tokens))
        return self._ready.popleft()


def encode_in_blocks(
    tokenizer: Any, documents: Iterator[Document], unreadable: UnreadableRows, n_token_ids: int | None
) -> Iterator[Sequence[int]]:
    """Yield the token ids of documents, tokenised `READ_DOCUMENTS` at a time."""
    while block := list(itertools.islice(documents, READ_DOCUMENTS)):
        yield from encode_documents(tokenizer, block, note_refused(unreadable), n_token_ids=n_token_ids)


def _read_in_order(documents: MapDocuments, order: Indices) -> Iterator[Document]:
    for start in range(0, len(order), READ_DOCUMENTS):
        yield from documents.read(order[start : start + READ_DOCUMENTS].tolist())
