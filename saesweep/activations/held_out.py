"""Held-out parts: fixed for the experiment, in one order, computed once."""

# Shape suffix legend: N = contexts, T = tokens per context, M = rows of a piece, D = width at a hook

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property

import torch
from torch import Tensor

from saesweep.activations.forward_passes import forward_pieces
from saesweep.activations.rows import NormLimit, RowFilter, predicts_NT, select_rows, token_ids_NT
from saesweep.activity import doing
from saesweep.models.base import LanguageModel
from saesweep.models.shape import shape_activations


class HeldOut(ABC):
    """One of the parts `select` and `test`.

    Attributes:
        tokens_NT: Its contexts, int64; None where there is no language model (synthetic activations).
        true_features_FD: The directions behind synthetic activations, one unit vector a row; None for all others.
    """

    tokens_NT: Tensor | None
    true_features_FD: Tensor | None = None

    @property
    @abstractmethod
    def mask_NT(self) -> Tensor | None:
        """The positions whose activations count, bool; None where there is no language model."""

    @property
    @abstractmethod
    def n_tokens(self) -> int:
        """Rows of activations, the sum of the mask."""

    @abstractmethod
    def batches(self, hook: str, max_tokens: int | None = None) -> Iterator[Tensor]:
        """Yield the activations [M,D] at a hook, always in the same order, float32, at most a batch at a time.

        Args:
            hook: One of the source's hooks.
            max_tokens: Stop after so many rows; None for all.
        """

    def labelled_batches(self, hook: str, max_tokens: int | None = None) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield what `batches` does, each with the activations of the true features where they are known."""
        for rows_MD in self.batches(hook, max_tokens):
            yield rows_MD, None


class HeldOutActivations(HeldOut):
    """Activations of held-out text. One forward pass serves all hooks, and its rows stay in memory in the model's type."""

    def __init__(
        self,
        *,
        model: LanguageModel,
        hooks: Sequence[str],
        head_index: int | None,
        tokens_NT: Tensor,
        rows: RowFilter,
        forward_contexts: int,
        batch_tokens: int,
        device: torch.device,
        norm_limit: NormLimit | None = None,
    ) -> None:
        self.tokens_NT: Tensor = token_ids_NT(tokens_NT)
        # The last token before padding predicts nothing that was written.
        self._counted_NT = rows.mask(tokens_NT) & predicts_NT(tokens_NT)
        self._norm_limit = norm_limit
        self._model = model
        self._hooks = tuple(hooks)
        self._head_index = head_index
        self._pieces = list(forward_pieces(len(tokens_NT), forward_contexts))
        self._cached: list[dict[str, Tensor]] = []
        self._batch_tokens = batch_tokens
        self._device = device

    @cached_property
    def mask_NT(self) -> Tensor:
        """Which positions count. Where a limit of the norm decides it, the model runs over the part for it, once for all uses."""
        if self._norm_limit is not None:
            for number in range(len(self._pieces)):
                self._rows(number)
        return self._counted_NT

    @cached_property
    def n_tokens(self) -> int:
        """Rows of activations."""
        return int(self.mask_NT.sum())

    def batches(self, hook: str, max_tokens: int | None = None) -> Iterator[Tensor]:
        """Yield the activations [M,D] at a hook; the model runs only for pieces that were not asked for before."""
        left = self.n_tokens if max_tokens is None else min(max_tokens, self.n_tokens)
        for number in range(len(self._pieces)):
            if left == 0:
                return
            rows_MD = self._rows(number)[hook][:left]
            left -= len(rows_MD)
            for start in range(0, len(rows_MD), self._batch_tokens):
                part_MD = rows_MD[start : start + self._batch_tokens]
                yield part_MD.to(device=self._device, dtype=torch.float32)

    def _rows(self, number: int) -> dict[str, Tensor]:
        """Return the rows of a piece by hook; those of earlier pieces are known."""
        if number == len(self._cached):
            doing("running the model on the held-out text", number, len(self._pieces))
            self._cached.append(self._compute(self._pieces[number]))
        return self._cached[number]

    def _compute(self, piece: slice) -> dict[str, Tensor]:
        acts = self._model.activations(self.tokens_NT[piece], self._hooks)
        counted_NT = self._counted_NT[piece]
        found = {hook: select_rows(shape_activations(acts[hook], self._head_index), counted_NT) for hook in self._hooks}
        if self._norm_limit is not None:
            keep_M = self._norm_limit.keep(found)
            counted_NT[counted_NT.clone()] = keep_M.cpu()  # a view: the part's own mask changes
            found = {hook: rows_MD[keep_M] for hook, rows_MD in found.items()}
        # Kept in main memory: the test part of a wide model is gigabytes. Copied, so that the rows are no view
        # of the whole output and no inference tensor, which autograd would refuse.
        return {hook: torch.empty(rows_MD.shape, dtype=rows_MD.dtype).copy_(rows_MD) for hook, rows_MD in found.items()}
