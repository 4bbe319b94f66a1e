"""The endless sequence of training contexts: documents in an order per epoch, tokenised as needed, packed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from saesweep.activations.packing import Packer, Packing
from saesweep.activations.split import TrainDocuments, encode_in_blocks
from saesweep.errors import UserError


class TokenSource:
    """Contexts of token ids, epoch after epoch; what an epoch's end leaves unfilled is dropped, as in SAELens.

    The state between two contexts is (epoch, document, offset in its tokens): no buffer to save.
    """

    def __init__(self, train: TrainDocuments, tokenizer: Any, packing: Packing) -> None:
        self._train = train
        self._tokenizer = tokenizer
        self._packing = packing
        self._position = (0, 0, 0)
        self._contexts = self._iterate(*self._position)

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
        return [next(self._contexts) for _ in range(n_contexts)]

    def state(self) -> dict[str, int]:
        """Return the position after the latest context, as JSON."""
        epoch, document, offset = self._position
        return {"epoch": epoch, "document": document, "offset": offset}

    def load_state(self, state: dict[str, int]) -> None:
        """Continue from a `state()` of a source with the same settings."""
        self._position = (state["epoch"], state["document"], state["offset"])
        self._contexts = self._iterate(*self._position)

    def _iterate(self, epoch: int, document: int, offset: int) -> Iterator[list[int]]:
        while True:
            fresh_epoch, packer = (document, offset) == (0, 0), Packer(self._packing)
            found = False
            documents = self._train.iterate(epoch, document)
            for tokens in encode_in_blocks(self._tokenizer, documents, self._train.documents.unreadable):
                for context, next_offset in packer.pack(tokens, offset):
                    found = True
                    self._position = (epoch, document, next_offset)
                    yield context
                document, offset = document + 1, 0
            if fresh_epoch and not found:
                raise UserError(
                    f"base.context_size: the training part of {self._train.documents.name} does not fill one context of "
                    f"{self._packing.context_size} tokens; lower context_size, evaluation.select_tokens or "
                    "evaluation.test_tokens, or use a larger dataset"
                )
            epoch, document, offset = epoch + 1, 0, 0
