"""Reads a cache: a held-out part, and training batches in the order in which the live stream served them.

Shape suffixes: N = contexts, T = tokens per context, M = rows of a piece, B = rows per batch, D = width at a hook.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from saesweep.activations.cache.shards import ShardRows
from saesweep.activations.forward_passes import forward_pieces
from saesweep.activations.held_out import HeldOut
from saesweep.activations.keys import Indices, key_permutation
from saesweep.activations.stream import BatchStream
from saesweep.errors import UserError


class CachedHeldOut(HeldOut):
    """Rows of held-out text, in the pieces in which the live part gives them: sums over pieces are then the same too.

    Args:
        rows: The part's rows.
        tokens_NT: Its contexts.
        mask_NT: Positions whose activations count.
        forward_contexts: Contexts per forward pass of the live part.
        batch_tokens: Maximum number of rows at a time.
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
        self._mask_NT = mask_NT
        self._n_tokens = int(mask_NT.sum())
        self._rows = rows
        self._piece_rows = [int(mask_NT[piece].sum()) for piece in forward_pieces(len(tokens_NT), forward_contexts)]
        self._batch_tokens = batch_tokens
        self._device = device

    @property
    def mask_NT(self) -> Tensor:
        """The positions whose activations count."""
        return self._mask_NT

    @property
    def n_tokens(self) -> int:
        """Rows of activations."""
        return self._n_tokens

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


_READ_AHEAD_BATCHES = 3


class CachedStream(BatchStream):
    """Batch i is rows i*B to (i+1)*B of the cache; a later epoch takes the batches in another order.

    A trial that trains on no more tokens than the cache holds sees no row twice, whenever it joins.

    Args:
        train: The training rows.
        window: The rows that `first_window` gives.
        d_in: The hooks that are read, and their widths.
        batch_tokens: B; any size, whatever the cache was written with.
        seed: Key of the later epochs' order.
        dtype: Type of the batches.
        device: Where batches go.
        name: The cache, for messages.
    """

    def __init__(
        self,
        *,
        train: ShardRows,
        window: ShardRows,
        d_in: Mapping[str, int],
        batch_tokens: int,
        seed: int,
        dtype: torch.dtype,
        device: torch.device,
        name: str,
    ) -> None:
        self.d_in = dict(d_in)
        self.batches_served = 0
        self.tokens_served = 0
        self._train = train
        self._window = window
        self._batch_tokens = batch_tokens
        self._seed = seed
        self._dtype = dtype
        self._device = device
        self._name = name
        self._n_batches = len(train) // batch_tokens
        if self._n_batches == 0:
            raise UserError(
                f"base.cached_activations_path: {name} holds {len(train)} training rows, less than one batch of "
                f"{batch_tokens}; lower train_batch_size_tokens or make a larger cache"
            )
        self._order: tuple[int, Indices] | None = None  # (epoch, permutation of its batches)
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="saesweep-cache")
        self._ahead: deque[Future[dict[str, Tensor]]] = deque()

    @property
    def epoch(self) -> int:
        """How often the cache was read to its end."""
        return self.batches_served // self._n_batches

    def next_batch(self) -> dict[str, Tensor]:
        """Return the next batch: for every hook [B,D], contiguous.

        Raises:
            UserError: A shard is missing or damaged.
        """
        while len(self._ahead) < _READ_AHEAD_BATCHES:
            place = self._place(self.batches_served + len(self._ahead))
            self._ahead.append(self._reader.submit(self._read, place))
        batch = self._ahead.popleft().result()
        self.batches_served += 1
        self.tokens_served += self._batch_tokens
        return self._deliver(batch)

    def first_window(self) -> Iterator[dict[str, Tensor]]:
        """Yield the rows that the live stream had in its first window, in pieces of at most B rows."""
        for start in range(0, len(self._window), self._batch_tokens):
            stop = min(start + self._batch_tokens, len(self._window))
            yield self._deliver(self._window.read(start, stop, list(self.d_in), dtype=self._dtype, pin=False))

    def state(self) -> dict[str, Any]:
        """Return the position between two batches: a small JSON object."""
        return {
            "settings": [self._seed, self._batch_tokens],
            "cached_batches": self._n_batches,
            "batches_served": self.batches_served,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state()`, also where the cache was extended since.

        Raises:
            ValueError: The state belongs to a stream with another seed or batch size.
            UserError: The cache holds fewer batches than it did.
        """
        if state["settings"] != [self._seed, self._batch_tokens]:
            raise ValueError(
                f"the stream's state was saved with (seed, batch) {state['settings']}, "
                f"this stream has {[self._seed, self._batch_tokens]}"
            )
        if int(state["cached_batches"]) > self._n_batches:
            raise UserError(
                f"base.cached_activations_path: {self._name} holds {self._n_batches} batches, the run that is resumed "
                f"began with {state['cached_batches']}; finish the cache with `saesweep cache-activations` first"
            )
        self._n_batches = int(state["cached_batches"])
        self._forget()
        self.batches_served = int(state["batches_served"])
        self.tokens_served = self.batches_served * self._batch_tokens

    def close(self) -> None:
        """End the read-ahead and close the files."""
        self._forget()
        self._reader.shutdown(wait=True)
        self._train.close()
        self._window.close()

    def _forget(self) -> None:
        for future in self._ahead:
            future.cancel()
        self._ahead.clear()

    def _place(self, number: int) -> int:
        epoch, index = divmod(number, self._n_batches)
        if epoch == 0:
            return index
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, key_permutation(self._n_batches, self._seed, "cached epoch", epoch)
        return int(self._order[1][index])

    def _read(self, place: int) -> dict[str, Tensor]:
        start = place * self._batch_tokens
        pin = self._device.type == "cuda"
        return self._train.read(start, start + self._batch_tokens, list(self.d_in), dtype=self._dtype, pin=pin)

    def _deliver(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {hook: rows_BD.to(self._device, non_blocking=True) for hook, rows_BD in batch.items()}
