"""Which dataset of a mixture the next context comes from, so that each has its share of the tokens.

It follows from the tokens taken so far alone, by the divisor method of Sainte-Lague: whoever is furthest behind its share.
At every moment the tokens of each dataset are within about a context of its share. A drawn choice is not: at 128 tokens per
context it would be off by half a per cent of all tokens after a million of them.
"""

from __future__ import annotations

from collections.abc import Sequence


class Shares:
    """Chooses the dataset of each context.

    Args:
        shares: Of the tokens, by dataset.
        context_size: Tokens per context.
    """

    def __init__(self, shares: Sequence[float], context_size: int) -> None:
        self._shares = tuple(shares)
        self._half = context_size / 2
        self.taken = [0] * len(shares)
        """Tokens so far, by dataset."""

    def choose(self) -> int:
        """Return whose turn it is; the first of those that are equally far behind."""
        behind = [(taken + self._half) / share for taken, share in zip(self.taken, self._shares, strict=True)]
        return behind.index(min(behind))

    def note(self, dataset: int, context: Sequence[int]) -> None:
        """Count a context: its tokens, but for those that the dataset's attention mask hides."""
        self.taken[dataset] += sum(token >= 0 for token in context)
