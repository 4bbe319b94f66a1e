"""Contexts through the language model, one forward pass at a time, in the order in which the window takes them."""

# Shape suffix legend: N = contexts, T = tokens per context, M = rows that count, D = width at a hook

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saesweep.activations.rows import NormLimit, RowFilter, paired, select_rows, token_ids_NT
from saesweep.activations.tokens import ContextSource
from saesweep.activations.window import WindowPlan
from saesweep.models.base import LanguageModel
from saesweep.models.shape import shape_activations


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """The contexts that enter the window together."""

    number: int
    """From 0."""
    source_state: dict[str, Any]
    """Where the source stood at its start."""
    n_contexts: int
    """Its contexts."""
    n_rows: int
    """Positions that count, or pairs of them; a norm limit leaves out more."""
    n_passes: int
    """Forward passes that it takes."""


@dataclass(frozen=True, kw_only=True)
class ForwardPass:
    """The rows of one forward pass."""

    chunk: Chunk
    """The chunk that they belong to."""
    rows: Mapping[str, Tensor]
    """For every hook [M,D], in the model's type, on its device; pairs of neighbours are one row [M,2D]."""
    ready: torch.cuda.Event | None = None
    """Passed when the rows are computed, where another CUDA stream computes them."""


class ForwardPasses:
    """Computes chunk after chunk, always in the same forward passes, so that a chunk made again is the same, bit for bit."""

    def __init__(
        self,
        *,
        model: LanguageModel,
        hooks: Sequence[str],
        head_index: int | None,
        source: ContextSource,
        rows: RowFilter,
        norm_limit: NormLimit | None,
        plan: WindowPlan,
        forward_contexts: int,
        pairs: bool = False,
    ) -> None:
        self._model = model
        self._hooks = tuple(hooks)
        self._head_index = head_index
        self._source = source
        self._rows = rows
        self._norm_limit = norm_limit
        self._plan = plan
        self._forward_contexts = forward_contexts
        self._pairs = pairs

    @property
    def has_norm_limit(self) -> bool:
        """Whether a chunk may have fewer rows than `Chunk.n_rows`."""
        return self._norm_limit is not None

    @property
    def passes_per_chunk(self) -> int:
        """Forward passes of a chunk after the start."""
        return len(list(forward_pieces(self._plan.full_chunk, self._forward_contexts)))

    def from_chunk(self, first: int) -> Iterator[ForwardPass]:
        """Yield the forward passes of chunk `first` and of all after it; the source must stand at its start."""
        for number in itertools.count(first):
            yield from self._chunk(number)

    def from_chunk_on_stream(self, first: int) -> Iterator[ForwardPass]:
        """As `from_chunk`, for another thread: on a GPU on a CUDA stream of its own, beside the training's."""
        if self._model.device.type != "cuda":
            yield from self.from_chunk(first)
            return
        stream = torch.cuda.Stream(self._model.device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.default_stream(self._model.device))  # the weights come from there
        passes = self.from_chunk(first)
        while True:
            with torch.cuda.stream(stream):
                found = next(passes)
                ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
                ready.record(stream)
            yield ForwardPass(chunk=found.chunk, rows=found.rows, ready=ready)

    def _chunk(self, number: int) -> Iterator[ForwardPass]:
        state = self._source.state()
        contexts = self._source.take(self._plan.contexts_of(number))
        tokens_NT = torch.from_numpy(np.asarray(contexts, dtype=np.int64))
        mask_NT = self._rows.mask(tokens_NT)
        if self._pairs:
            mask_NT = paired(mask_NT)
        tokens_NT = token_ids_NT(tokens_NT)
        pieces = list(forward_pieces(len(tokens_NT), self._forward_contexts))
        chunk = Chunk(
            number=number,
            source_state=state,
            n_contexts=len(tokens_NT),
            n_rows=int(mask_NT.sum()) // (2 if self._pairs else 1),
            n_passes=len(pieces),
        )
        for piece in pieces:
            acts = self._model.activations(tokens_NT[piece], self._hooks)
            rows = {
                hook: select_rows(shape_activations(acts[hook], self._head_index), mask_NT[piece])
                for hook in self._hooks
            }
            if self._norm_limit is not None:
                keep_M = self._norm_limit.keep(rows)
                if self._pairs:
                    keep_M = keep_M.view(-1, 2).all(dim=1).repeat_interleave(2)
                rows = {hook: rows_MD[keep_M] for hook, rows_MD in rows.items()}
            if self._pairs:
                rows = {hook: rows_MD.reshape(-1, 2 * rows_MD.shape[1]) for hook, rows_MD in rows.items()}
            yield ForwardPass(chunk=chunk, rows=rows)


def forward_pieces(n_contexts: int, max_contexts: int) -> Iterator[slice]:
    """Cut contexts into the fewest forward passes of at most `max_contexts` contexts, near-equal in size; none into none."""
    count = -(-n_contexts // max_contexts)
    for part in range(count):
        yield slice(n_contexts * part // count, n_contexts * (part + 1) // count)
