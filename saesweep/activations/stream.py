"""Deterministic shuffled batches of activations, from one forward pass for all hooks and all SAEs."""

# Shape suffix legend: B = rows per batch, D = width at a hook

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saesweep.activations.chunks import ChunkLoader
from saesweep.activations.forward_passes import ForwardPasses
from saesweep.activations.keys import Indices, key_permutation
from saesweep.activations.rows import NormLimit, RowFilter
from saesweep.activations.tokens import ContextSource
from saesweep.activations.window import RowPool, WindowPlan
from saesweep.activity import doing
from saesweep.models.base import LanguageModel


class BatchStream(ABC):
    """An endless, resumable sequence of activation batches.

    Attributes:
        d_in: Width at every hook.
        batches_served: Batches handed out so far, before a resume included.
        tokens_served: Rows handed out so far.
    """

    d_in: dict[str, int]
    batches_served: int
    tokens_served: int

    @property
    @abstractmethod
    def epoch(self) -> int:
        """How often the data was read to the end, by the oldest rows still to be served."""

    @property
    def unreadable_rows(self) -> int:
        """Rows of the dataset that this process could not use and left out."""
        return 0

    @property
    def is_known_finite(self) -> bool:
        """Whether the batch served last is known to hold neither NaN nor infinities, so that nobody need look."""
        return False

    @abstractmethod
    def next_batch(self) -> dict[str, Tensor]:
        """Return the next batch: for every hook [B,D], contiguous, the same rows of text for all hooks."""

    @abstractmethod
    def first_window(self) -> Iterator[dict[str, Tensor]]:
        """Yield the rows in the window in pieces of at most B rows, without serving them, to estimate norms."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Return the position between two batches: a small JSON object."""

    @abstractmethod
    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state()`: the next batch is the one that came next there, bit for bit.

        Raises:
            ValueError: The state belongs to a stream with other settings.
        """

    @abstractmethod
    def close(self) -> None:
        """Give the memory back."""


class ActivationStream(BatchStream):
    """Batches of a language model's activations: a pure function of (model, hooks, dataset, context, seed)."""

    def __init__(
        self,
        *,
        model: LanguageModel,
        d_in: Mapping[str, int],
        head_index: int | None,
        source: ContextSource,
        rows: RowFilter,
        window_tokens: int,
        batch_tokens: int,
        forward_contexts: int,
        seed: int,
        dtype: torch.dtype,
        device: torch.device,
        store_device: torch.device,
        norm_limit: NormLimit | None = None,
        passes_ahead: bool | int = False,
        pairs: bool = False,
    ) -> None:
        """Prepare the stream; the model runs when the first batch is asked for.

        Args:
            model: The language model.
            d_in: The hooks and their widths.
            head_index: The head to keep at hooks with a head axis.
            source: Training contexts.
            rows: Which positions count.
            window_tokens: Rows in the shuffle window (memory).
            batch_tokens: Rows per batch.
            forward_contexts: Contexts per forward pass of the model.
            seed: Key of the shuffle.
            dtype: Type of the batches. The window keeps the model's own.
            device: Where batches go.
            store_device: Where the window is.
            norm_limit: Leaves out rows with huge norms.
            passes_ahead: Forward passes that the model runs ahead on a thread of its own, which changes no batch; True
                for those that fill the next place in the window.
            pairs: Rows 2i and 2i + 1 of a batch are of neighbouring tokens: each two are shuffled as one, and a token without
                a neighbour is left out.
        """
        self.d_in = dict(d_in)
        self.batches_served = 0
        self.tokens_served = 0
        self._source = source
        self._seed = seed
        self._tokens_of_row = 2 if pairs else 1
        self._batch_tokens = batch_tokens
        self._batch_rows = batch_tokens // self._tokens_of_row
        self._dtype = dtype
        self._device = device
        self._plan = WindowPlan.fit(max(1, window_tokens // rows.rows_per_context), forward_contexts)
        # A chunk's segments differ by a row, so each of the G chunks may hold one more than its share.
        of_context = rows.rows_per_context // self._tokens_of_row
        self._pool = RowPool(self._plan.resident_contexts * of_context + self._plan.segments, store_device)
        passes = ForwardPasses(
            model=model,
            hooks=list(d_in),
            head_index=head_index,
            source=source,
            rows=rows,
            norm_limit=norm_limit,
            plan=self._plan,
            forward_contexts=forward_contexts,
            pairs=pairs,
        )
        self._loader = ChunkLoader(passes=passes, plan=self._plan, pool=self._pool, seed=seed, ahead=passes_ahead)
        self._settings = [seed, self._plan.segments, self._plan.unit, forward_contexts, batch_tokens]
        self._settings += [2] if pairs else []
        self._interval = 0
        self._chunks: deque[_Chunk] = deque()  # those that the interval reads
        self._order: Indices = np.empty(0, dtype=np.int64)  # slots of the interval, as they are served
        self._order_index = torch.empty(0, dtype=torch.int64)  # the same, where the rows are
        self._offset = 0  # rows of the interval that are served
        self._is_known_finite = False

    @property
    def window_nbytes(self) -> int:
        """Bytes of the shuffle window."""
        return self._pool.nbytes

    @property
    def epoch(self) -> int:
        """How often the data was read to the end, by the oldest rows still to be served."""
        return int(self._oldest_source()["epoch"])

    @property
    def unreadable_rows(self) -> int:
        """Rows of the dataset that this process could not use and left out."""
        return self._source.unreadable_rows

    @property
    def is_known_finite(self) -> bool:
        """Whether the batch served last is known to hold neither NaN nor infinities, so that nobody need look."""
        return self._is_known_finite

    def next_batch(self) -> dict[str, Tensor]:
        """Return the next batch: for every hook [B,D], contiguous, the same rows of text for all hooks."""
        self._open_interval()
        are_finite = self._chunks_are_finite()
        batch = self._pool.empty(self._batch_rows)
        filled = 0
        while filled < self._batch_rows:
            if self._offset == len(self._order):
                self._next_interval()
                are_finite = are_finite and self._chunks_are_finite()
            index_M = self._order_index[self._offset : self._offset + self._batch_rows - filled]
            # Gathered before the next chunk is loaded, which overwrites served slots.
            self._pool.gather_into(batch, filled, index_M)
            self._offset += len(index_M)
            filled += len(index_M)
        # float16 may not hold what the window does.
        narrowed = any(torch.finfo(self._dtype).max < torch.finfo(rows.dtype).max for rows in batch.values())
        self._is_known_finite = are_finite and not narrowed
        self.batches_served += 1
        self.tokens_served += self._batch_tokens
        return {hook: self._deliver(rows_BD) for hook, rows_BD in batch.items()}

    def first_window(self) -> Iterator[dict[str, Tensor]]:
        """Yield the rows in the window in pieces of at most B rows, without serving them, to estimate norms."""
        self._open_interval()
        waiting = np.concatenate([self._order[self._offset :], *(s for c in self._chunks for s in c.segments)])
        for start in range(0, len(waiting), self._batch_rows):
            slots = waiting[start : start + self._batch_rows]
            piece = self._pool.empty(len(slots))
            self._pool.gather_into(piece, 0, self._pool.index(slots))
            yield {hook: self._deliver(rows_MD) for hook, rows_MD in piece.items()}

    def state(self) -> dict[str, Any]:
        """Return the position between two batches: a small JSON object."""
        return {
            "settings": list(self._settings),
            "interval": self._interval,
            "offset": self._offset,
            "source": self._oldest_source(),
            "batches_served": self.batches_served,
            "tokens_served": self.tokens_served,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state()`; the rows of one window are computed again when the next batch is asked for.

        Raises:
            ValueError: The state belongs to a stream with another seed, window, forward or batch size.
        """
        if state["settings"] != self._settings:
            raise ValueError(
                f"the stream's state was saved with (seed, segments, contexts per segment, contexts per forward, "
                f"batch; 2 for pairs) {state['settings']}, this stream has {self._settings}"
            )
        self._loader.stop()
        self._pool.release(self._order)
        for chunk in self._chunks:
            for segment in chunk.segments:
                self._pool.release(segment)
        self._chunks.clear()
        self._order = np.empty(0, dtype=np.int64)
        self._interval = int(state["interval"])
        self._offset = int(state["offset"])
        self._source.load_state(state["source"])
        self.batches_served = int(state["batches_served"])
        self.tokens_served = int(state["tokens_served"])

    def close(self) -> None:
        """Give the memory of the window back; the stream must not be read afterwards."""
        self._loader.stop()
        self._source.close()
        self._pool = RowPool(0, torch.device("cpu"))
        self._chunks.clear()

    def _oldest_source(self) -> dict[str, Any]:
        return self._chunks[0].source_state if self._chunks else self._source.state()

    def _open_interval(self) -> None:
        """Make the interval's chunks resident (at the start and after a resume) and put its rows in order."""
        if not self._chunks:
            self._loader.start(self._interval)
            for number in range(self._plan.segments):
                doing("filling the shuffle window with activations", number, self._plan.segments)
                self._load(self._interval + number)
            self._shuffle_interval()

    def _next_interval(self) -> None:
        self._pool.release(self._order)
        self._chunks.popleft()
        self._interval += 1
        self._offset = 0
        self._load(self._interval + self._plan.segments - 1)
        self._shuffle_interval()

    def _load(self, chunk: int) -> None:
        served = self._interval - self._plan.first_interval(chunk)
        about, segments, is_finite = self._loader.load(chunk, served)
        self._chunks.append(_Chunk(about.source_state, deque(segments), is_finite))

    def _chunks_are_finite(self) -> bool:
        return all(chunk.is_finite for chunk in self._chunks)

    def _shuffle_interval(self) -> None:
        slots = np.concatenate([chunk.segments.popleft() for chunk in self._chunks])
        self._order = slots[key_permutation(len(slots), self._seed, "interval", self._interval)]
        # At once: handing over a batch's part of it would wait for a GPU at every step.
        self._order_index = self._pool.index(self._order)

    def _deliver(self, rows_MD: Tensor) -> Tensor:
        """Return rows of the pool as a batch [B,D]: a row of the pool is a token, or two one after the other."""
        tokens_BD = rows_MD.view(rows_MD.shape[0] * self._tokens_of_row, -1)
        return tokens_BD.to(device=self._device, dtype=self._dtype)


class _Chunk:
    """A chunk in the window: where the source stood at its start, the slots of its waiting segments, and whether all rows are finite."""

    def __init__(self, source_state: dict[str, Any], segments: deque[Indices], is_finite: bool) -> None:
        self.source_state = source_state
        self.segments = segments
        self.is_finite = is_finite
