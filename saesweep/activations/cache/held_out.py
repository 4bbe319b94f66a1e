"""A held-out part read from a cache."""

# Shape suffix legend: N = contexts, T = tokens per context, M = rows of a piece, D = width at a hook

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from saesweep.activations.cache.shards import ShardRows
from saesweep.activations.forward_passes import forward_pieces
from saesweep.activations.held_out import HeldOut


class CachedHeldOut(HeldOut):
    """Rows of held-out text, in the pieces in which the live part gives them: sums over pieces are then the same too.

    Args:
        rows: The part's rows.
        tokens_NT: Its contexts.
        mask_NT: Positions whose activations count.
        forward_contexts: Contexts per forward pass of the live part.
        batch_tokens: Most rows at a time.
        device: Where the rows go.
    """

    def __init__(
        self,
        *,
        rows: ShardRows,
        tokens_NT: Tensor,
        mask_NT: Tensor,
        forward_contexts: int,
        batch_tokens: int,
        device: torch.device,
    ) -> None:
        self.tokens_NT: Tensor = tokens_NT
        self.mask_NT: Tensor = mask_NT
        self.n_tokens = int(mask_NT.sum())
        self._rows = rows
        self._piece_rows = [int(mask_NT[piece].sum()) for piece in forward_pieces(len(tokens_NT), forward_contexts)]
        self._batch_tokens = batch_tokens
        self._device = device

    def batches(self, hook: str, max_tokens: int | None = None) -> Iterator[Tensor]:
        """Yield the activations [M,D] at a hook, float32.

        Raises:
            UserError: A shard is missing or damaged.
        """
        left = self.n_tokens if max_tokens is None else min(max_tokens, self.n_tokens)
        begin = 0
        for n_rows in self._piece_rows:
            end = begin + min(n_rows, left)
            left -= end - begin
            for start in range(begin, end, self._batch_tokens):
                stop = min(start + self._batch_tokens, end)
                yield self._rows.read(start, stop, [hook], dtype=torch.float32, pin=False)[hook].to(self._device)
            begin += n_rows
