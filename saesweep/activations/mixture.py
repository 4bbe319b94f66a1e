"""Several datasets in one sequence of contexts, each with its share of the tokens.

Every dataset is packed by itself, so that a context holds text of one of them. Rows of different contexts meet in the
shuffle window as those of one dataset do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from saesweep.activations.shares import Shares
from saesweep.activations.tokens import ContextSource


class MixedSource(ContextSource):
    """Contexts of several datasets. One that ends begins its next epoch, in another order, and keeps its share.

    Args:
        sources: One per dataset.
        shares: Of the tokens, by dataset.
        context_size: Tokens per context.
    """

    def __init__(self, sources: Sequence[ContextSource], shares: Sequence[float], context_size: int) -> None:
        self._sources = tuple(sources)
        self._shares = Shares(shares, context_size)

    @property
    def epoch(self) -> int:
        """The epoch, from 0, of the dataset that was read most often."""
        return max(source.epoch for source in self._sources)

    @property
    def unreadable_rows(self) -> int:
        """Different rows of all datasets that could not be used so far."""
        return sum(source.unreadable_rows for source in self._sources)

    def take(self, n_contexts: int) -> list[list[int]]:
        """Return the next `n_contexts` contexts.

        Raises:
            UserError: An epoch of a dataset holds not a single context.
        """
        contexts = []
        for _ in range(n_contexts):
            dataset = self._shares.choose()
            contexts += self._sources[dataset].take(1)
            self._shares.note(dataset, contexts[-1])
        return contexts

    def state(self) -> dict[str, Any]:
        """Return the position after the latest context, as JSON."""
        return {
            "epoch": self.epoch,
            "taken": list(self._shares.taken),
            "sources": [source.state() for source in self._sources],
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from a `state()` of a mixture with the same settings."""
        for source, own in zip(self._sources, state["sources"], strict=True):
            source.load_state(own)
        self._shares.taken = list(state["taken"])

    def close(self) -> None:
        """End the threads; the next `take` starts others where these were."""
        for source in self._sources:
            source.close()
