"""The shuffle window: when each row is served, and where it waits until then.

Contexts come in chunks. The rows of a chunk are permuted and cut into G segments; G chunks are in the window, and each
interval serves one segment of every one of them, in a permuted order. So a row waits up to G intervals, a batch mixes
the rows of G chunks, and yet any moment can be made again from G chunks alone. Resident are 1/G + 2/G + ... + 1 =
(G+1)/2 chunks. The first G-1 chunks are shorter (1/G, 2/G, ...), so the start is like any other moment.
"""

# Shape suffix legend: M = some rows, C = capacity in rows, D = width at a hook

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from saesweep.activations.keys import Indices

_MAX_SEGMENTS = 8


@dataclass(frozen=True)
class WindowPlan:
    """Sizes of the window, in contexts."""

    segments: int
    """G: segments per chunk, chunks in the window."""
    unit: int
    """Contexts per segment of a full chunk."""

    @classmethod
    def fit(cls, window_contexts: int, forward_contexts: int) -> WindowPlan:
        """Return the plan that mixes the most contexts, of those whose residents fit and whose chunks fill a forward pass.

        Args:
            window_contexts: Contexts that may be resident, at least 1.
            forward_contexts: Contexts per forward pass of the model.
        """
        plans = [
            cls(segments, window_contexts // (segments * (segments + 1) // 2))
            for segments in range(2, _MAX_SEGMENTS + 1)
        ]
        full = [plan for plan in plans if plan.full_chunk >= forward_contexts]
        if full:
            return max(full, key=lambda plan: plan.mixed_contexts)
        return plans[0] if window_contexts >= 3 else cls(1, window_contexts)

    @property
    def mixed_contexts(self) -> int:
        """Contexts whose rows can meet in a batch."""
        return self.unit * self.segments**2

    @property
    def resident_contexts(self) -> int:
        """Contexts whose rows are in memory at once."""
        return self.unit * self.segments * (self.segments + 1) // 2

    @property
    def full_chunk(self) -> int:
        """Contexts per chunk after the start."""
        return self.unit * self.segments

    def contexts_of(self, chunk: int) -> int:
        """Contexts of a chunk."""
        return self.unit * self.segments_of(chunk)

    def segments_of(self, chunk: int) -> int:
        """Segments of a chunk: one per interval in which it is served."""
        return min(chunk + 1, self.segments)

    def first_interval(self, chunk: int) -> int:
        """The interval that serves a chunk's first segment."""
        return max(0, chunk - self.segments + 1)

    def cut(self, rows: Indices, chunk: int) -> list[Indices]:
        """Cut a chunk's rows into its segments, of near-equal length."""
        count = self.segments_of(chunk)
        bounds = [len(rows) * part // count for part in range(count + 1)]
        return [rows[start:end] for start, end in pairwise(bounds)]


class RowPool:
    """Pre-allocated rows for every hook; a row is written once, and gathered once when it is served."""

    def __init__(self, capacity: int, device: torch.device) -> None:
        self._capacity = capacity
        self._device = device
        self._rows_CD: dict[str, Tensor] = {}
        self._free: Indices = np.arange(capacity - 1, -1, -1, dtype=np.int64)
        self._n_free = capacity

    @property
    def nbytes(self) -> int:
        """Bytes allocated."""
        return sum(rows.nbytes for rows in self._rows_CD.values())

    def take(self, count: int) -> Indices:
        """Return free slots.

        Raises:
            RuntimeError: There are not so many, which is a bug in the plan.
        """
        if count > self._n_free:
            raise RuntimeError(
                f"the shuffle window has {self._n_free} free rows of {self._capacity}, {count} are needed"
            )
        self._n_free -= count
        slots: Indices = self._free[self._n_free : self._n_free + count][::-1].copy()
        return slots

    def release(self, slots: Indices) -> None:
        """Give slots back."""
        self._free[self._n_free : self._n_free + len(slots)] = slots
        self._n_free += len(slots)

    def write(self, hook: str, slots: Indices, rows_MD: Tensor) -> None:
        """Copy rows into slots; the first write fixes the hook's width and type."""
        if hook not in self._rows_CD:
            shape = (self._capacity, rows_MD.shape[1])
            self._rows_CD[hook] = torch.empty(shape, dtype=rows_MD.dtype, device=self._device)
        pool_CD = self._rows_CD[hook]
        pool_CD.index_copy_(0, self.index(slots), rows_MD.to(device=self._device, dtype=pool_CD.dtype))

    def empty(self, count: int) -> dict[str, Tensor]:
        """Return memory for rows, [M,D] per hook, where the pool is; every hook must have been written to."""
        return {hook: pool_CD.new_empty((count, pool_CD.shape[1])) for hook, pool_CD in self._rows_CD.items()}

    def gather_into(self, out: Mapping[str, Tensor], start: int, index_M: Tensor) -> None:
        """Copy the rows of an `index` to `out[hook][start:]`: the one copy of a row that is served."""
        for hook, pool_CD in self._rows_CD.items():
            torch.index_select(pool_CD, 0, index_M, out=out[hook][start : start + len(index_M)])

    def index(self, slots: Indices) -> Tensor:
        """Return slots where the rows are; a GPU is waited for."""
        return torch.from_numpy(slots).to(self._device)
