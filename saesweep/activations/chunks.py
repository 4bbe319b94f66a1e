"""Fills the shuffle window: the rows of forward passes into their slots."""

# Shape suffix legend: M = rows that count, D = width at a hook

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from saesweep.activations.background import BackgroundIterator
from saesweep.activations.forward_passes import Chunk, ForwardPass, ForwardPasses
from saesweep.activations.keys import Indices, key_permutation
from saesweep.activations.window import RowPool, WindowPlan
from saesweep.errors import UserError


class ChunkLoader:
    """Puts one chunk after the other into the pool.

    Args:
        passes: Computes the rows.
        plan: The window.
        pool: Where rows wait.
        seed: Key of the shuffle.
        ahead: Forward passes that run ahead on a thread of their own; True for those of one chunk, 0 for none.
    """

    def __init__(self, *, passes: ForwardPasses, plan: WindowPlan, pool: RowPool, seed: int, ahead: bool | int) -> None:
        self._passes = passes
        self._plan = plan
        self._pool = pool
        self._seed = seed
        self._ahead = passes.passes_per_chunk if ahead is True else int(ahead)
        self._queue: Iterator[ForwardPass] | None = None

    def start(self, chunk: int) -> None:
        """Begin at a chunk; the source must stand at its start."""
        self.stop()
        if self._ahead:
            self._queue = BackgroundIterator(self._passes.from_chunk_on_stream(chunk), self._ahead)
        else:
            self._queue = self._passes.from_chunk(chunk)

    def stop(self) -> None:
        """Compute nothing further and leave the source alone; `start` must come before the next `load`."""
        if isinstance(self._queue, BackgroundIterator):
            self._queue.close()
        self._queue = None

    def load(self, chunk: int, served_segments: int) -> tuple[Chunk, list[Indices], bool]:
        """Put the rows of the next chunk into the pool.

        Args:
            chunk: Its number.
            served_segments: Segments that were served before (after a resume): their rows are left out.

        Returns:
            The chunk, the slots of each segment still to be served, in order, and whether all their rows are finite.

        Raises:
            UserError: No position of the whole chunk counts.
        """
        assert self._queue is not None
        first = next(self._queue)
        about = first.chunk
        if about.number != chunk:
            raise RuntimeError(f"chunk {about.number} came in place of {chunk}")
        passes = _then(first, self._queue, about.n_passes - 1)
        n_rows = about.n_rows
        if self._passes.has_norm_limit:  # only now it is known how many rows are left
            whole = list(passes)
            n_rows, passes = sum(_n_rows(each) for each in whole), iter(whole)
        if n_rows == 0:
            field = "max_activation_norm_multiple" if about.n_rows else "exclude_special_tokens"
            raise UserError(f"base.{field}: it leaves no activation in {about.n_contexts} contexts; leave out fewer")
        order = key_permutation(n_rows, self._seed, "chunk", chunk)
        segments = self._plan.cut(order, chunk)[served_segments:]
        slot_of_row = np.full(n_rows, -1, dtype=np.int64)
        waiting = np.sort(np.concatenate(segments))  # sorted: rows of one context lie together
        slot_of_row[waiting] = self._pool.take(len(waiting))
        is_finite = self._write(passes, slot_of_row)
        return about, [slot_of_row[segment] for segment in segments], is_finite

    def _write(self, passes: Iterator[ForwardPass], slot_of_row: Indices) -> bool:
        start, sums = 0, []
        for each in passes:
            slots = slot_of_row[start : start + _n_rows(each)]
            start += len(slots)
            waits = slots >= 0
            for hook, rows_MD in each.rows.items():
                if each.ready is not None:
                    current = torch.cuda.current_stream(rows_MD.device)
                    current.wait_event(each.ready)
                    rows_MD.record_stream(current)
                waiting_MD = rows_MD if waits.all() else rows_MD[torch.from_numpy(waits).to(rows_MD.device)]
                self._pool.write(hook, slots[waits], waiting_MD)
                # One read of the rows, which keeps NaN and infinities; where it overflows, batches are looked at one by one.
                sums.append(waiting_MD.sum(dtype=torch.float32))
        together = torch.stack([each.to(sums[0].device) for each in sums])  # hooks may be on several GPUs
        return bool(torch.isfinite(together).all())


def _then(first: ForwardPass, queue: Iterator[ForwardPass], more: int) -> Iterator[ForwardPass]:
    yield first
    for _ in range(more):
        yield next(queue)


def _n_rows(each: ForwardPass) -> int:
    return len(next(iter(each.rows.values())))
