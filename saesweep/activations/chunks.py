"""Fills the shuffle window: contexts -> language model -> rows in their slots."""

# Shape suffix legend: N = contexts, T = tokens per context, M = rows that count, D = width at a hook

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from saesweep.activations.keys import Indices, key_permutation
from saesweep.activations.rows import RowFilter, select_rows
from saesweep.activations.tokens import TokenSource
from saesweep.activations.window import RowPool, WindowPlan
from saesweep.errors import UserError
from saesweep.models.base import LanguageModel
from saesweep.models.shape import shape_activations


class ChunkLoader:
    """Computes one chunk after the other, always in the same forward passes, so that a chunk made again is the same."""

    def __init__(
        self,
        *,
        model: LanguageModel,
        hooks: Sequence[str],
        head_index: int | None,
        source: TokenSource,
        rows: RowFilter,
        plan: WindowPlan,
        pool: RowPool,
        forward_contexts: int,
        seed: int,
    ) -> None:
        self._model = model
        self._hooks = tuple(hooks)
        self._head_index = head_index
        self._source = source
        self._rows = rows
        self._plan = plan
        self._pool = pool
        self._forward_contexts = forward_contexts
        self._seed = seed

    def load(self, chunk: int, served_segments: int) -> list[Indices]:
        """Take the next contexts from the source as chunk number `chunk` and put their rows into the pool.

        Args:
            chunk: Its number, from 0; the source must stand at its start.
            served_segments: Segments that were served before (after a resume): their rows are left out.

        Returns:
            The slots of each segment still to be served, in order.

        Raises:
            UserError: No position of the whole chunk counts.
        """
        contexts = self._source.take(self._plan.contexts_of(chunk))
        tokens_NT = torch.from_numpy(np.asarray(contexts, dtype=np.int64))
        mask_NT = self._rows.mask(tokens_NT)
        n_rows = int(mask_NT.sum())
        if n_rows == 0:
            raise UserError(
                f"base.exclude_special_tokens: it leaves no activation in {len(contexts)} contexts; leave out fewer tokens"
            )
        order = key_permutation(n_rows, self._seed, "chunk", chunk)
        segments = self._plan.cut(order, chunk)[served_segments:]
        slot_of_row = np.full(n_rows, -1, dtype=np.int64)
        waiting = np.sort(np.concatenate(segments))  # sorted: rows of one context lie together
        slot_of_row[waiting] = self._pool.take(len(waiting))
        self._write(tokens_NT, mask_NT, slot_of_row)
        return [slot_of_row[segment] for segment in segments]

    def _write(self, tokens_NT: Tensor, mask_NT: Tensor, slot_of_row: Indices) -> None:
        start = 0
        for piece in forward_pieces(len(tokens_NT), self._forward_contexts):
            acts = self._model.activations(tokens_NT[piece], self._hooks)
            slots = slot_of_row[start : start + int(mask_NT[piece].sum())]
            start += len(slots)
            waits = slots >= 0
            for hook in self._hooks:
                rows_MD = select_rows(shape_activations(acts[hook], self._head_index), mask_NT[piece])
                if not waits.all():
                    rows_MD = rows_MD[torch.from_numpy(waits).to(rows_MD.device)]
                self._pool.write(hook, slots[waits], rows_MD)


def forward_pieces(n_contexts: int, at_most: int) -> Iterator[slice]:
    """Cut contexts into the fewest forward passes of at most `at_most` contexts, near-equal in size."""
    count = -(-n_contexts // at_most)
    bounds = [n_contexts * part // count for part in range(count + 1)]
    return (slice(start, end) for start, end in pairwise(bounds))
