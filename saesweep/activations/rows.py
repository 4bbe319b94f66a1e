"""Which positions of a context give a row of activations."""

# Shape suffix legend: N = contexts, T = tokens per context, M = rows that count, D = width at a hook

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class RowFilter:
    """Positions inside `seqpos_slice` whose token is not excluded."""

    context_size: int
    """Tokens per context."""
    seqpos_slice: tuple[int | None, ...] = (None,)
    """Arguments of Python's `slice`."""
    excluded: Sequence[int] = ()
    """Token ids whose activations are left out."""

    @property
    def rows_per_context(self) -> int:
        """Most rows that a context gives."""
        return len(range(self.context_size)[slice(*self.seqpos_slice)])

    def mask(self, tokens_NT: Tensor) -> Tensor:
        """Return which positions of packed contexts count, bool [N,T]."""
        mask_NT = torch.zeros_like(tokens_NT, dtype=torch.bool)
        mask_NT[:, range(self.context_size)[slice(*self.seqpos_slice)]] = True
        mask_NT &= tokens_NT >= 0  # hidden by the dataset's attention mask
        if self.excluded:
            mask_NT &= ~torch.isin(tokens_NT, torch.tensor(self.excluded, dtype=tokens_NT.dtype))
        return mask_NT


def select_rows(acts_NTD: Tensor, mask_NT: Tensor) -> Tensor:
    """Return the rows [M,D] at the positions that count, context by context."""
    if bool(mask_NT.all()):  # no copy
        return acts_NTD.flatten(0, 1)
    return acts_NTD[mask_NT.to(acts_NTD.device)]
