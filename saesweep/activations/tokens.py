"""The endless sequence of training contexts: documents in an order per epoch, tokenised as needed, packed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

from saesweep.activations.background import BackgroundIterator
from saesweep.activations.packing import Packer, Packing, no_document_is_long_enough
from saesweep.activations.split import TrainDocuments, encode_in_blocks
from saesweep.errors import UserError

AHEAD_CONTEXTS = 256
"""Maximum number of contexts that are tokenised before they are asked for."""
_PATIENCE_SECONDS = 2.0
"""A thread that waits for a lost connection does not hold up the end of the process."""

_Position = tuple[int, int, int]


class ContextSource(ABC):
    """An endless, resumable sequence of contexts of token ids."""

    @property
    @abstractmethod
    def epoch(self) -> int:
        """The epoch, from 0, of the latest context."""

    @property
    @abstractmethod
    def unreadable_rows(self) -> int:
        """Different rows that could not be used so far."""

    @abstractmethod
    def take(self, n_contexts: int) -> list[list[int]]:
        """Return the next `n_contexts` contexts."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Return the position after the latest context, as JSON; `epoch` is in it."""

    @abstractmethod
    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from a `state()` of a source with the same settings."""

    @abstractmethod
    def close(self) -> None:
        """End the threads; the next `take` starts others where these were."""


class TokenSource(ContextSource):
    """Contexts of one dataset, epoch after epoch; what an epoch's end leaves unfilled is dropped, as in SAELens.

    The state between two contexts is (epoch, document, offset in its tokens): no buffer to save. Documents are read,
    tokenised and packed on a thread of their own, a bounded number of contexts ahead.
    """

    def __init__(self, train: TrainDocuments, tokenizer: Any, packing: Packing) -> None:
        self._train = train
        self._tokenizer = tokenizer
        self._packing = packing
        self._position: _Position = (0, 0, 0)
        self._ahead: BackgroundIterator[tuple[list[int], _Position]] | None = None

    @property
    def epoch(self) -> int:
        """The epoch, from 0, of the latest context."""
        return self._position[0]

    @property
    def unreadable_rows(self) -> int:
        """Different rows of the dataset that could not be used so far."""
        return self._train.documents.unreadable.count

    def take(self, n_contexts: int) -> list[list[int]]:
        """Return the next `n_contexts` contexts.

        Raises:
            UserError: An epoch holds not a single context.
        """
        if self._ahead is None:
            contexts_ahead = _contexts(self._train, self._tokenizer, self._packing, self._position)
            self._ahead = BackgroundIterator(
                contexts_ahead, AHEAD_CONTEXTS, name="saesweep-tokens", patience_seconds=_PATIENCE_SECONDS
            )
        contexts = []
        for _ in range(n_contexts):
            context, self._position = next(self._ahead)
            contexts.append(context)
        return contexts

    def state(self) -> dict[str, Any]:
        """Return the position after the latest context, as JSON."""
        epoch, document, offset = self._position
        return {"epoch": epoch, "document": document, "offset": offset}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from a `state()` of a source with the same settings."""
        self.close()
        self._position = (state["epoch"], state["document"], state["offset"])

    def close(self) -> None:
        """End the thread; the next `take` starts another one where this one was."""
        if self._ahead is not None:
            self._ahead.close()
            self._ahead = None


def _contexts(
    train: TrainDocuments, tokenizer: Any, packing: Packing, position: _Position
) -> Iterator[tuple[list[int], _Position]]:
    """Yield (context, position after it) for ever; it knows no `TokenSource`, which its thread would keep alive."""
    epoch, document, offset = position
    while True:
        fresh_epoch, packer = (document, offset) == (0, 0), Packer(packing)
        found = False
        documents = train.iterate(epoch, document)
        for tokens in encode_in_blocks(tokenizer, documents, train.documents.unreadable, packing.n_token_ids):
            for context, next_offset in packer.pack(tokens, offset):
                found = True
                yield context, (epoch, document, next_offset)
            document, offset = document + 1, 0
        if fresh_epoch and not found:
            if not packing.concatenate and not packing.is_tokenized:
                raise UserError(no_document_is_long_enough(train.documents.name, packing.context_size))
            raise UserError(
                f"base.context_size: the training part of {train.documents.name} does not fill one context of "
                f"{packing.context_size} tokens; lower context_size, evaluation.select_tokens or "
                "evaluation.test_tokens, or use a larger dataset"
            )
        epoch, document, offset = epoch + 1, 0, 0
