"""Memory within a step: what all SAEs of a cohort share one after the other, sums that need not be cleared first, and operations in place.

Shape suffixes: R = rows (tokens) of a piece, F = d_sae, D = d_in, P = active pairs.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from saesweep.cohort.kernels.choice import Gemm
from saesweep.cohort.kernels.gemm import add_product_, product
from saesweep.cohort.kernels.pairs import ByLatent


class Scratch:
    """Named work buffers that only ever grow.

    Two SAEs of different shape get views of the same memory, so that a slot owns its weights and moments alone; and the
    operating system zeroes each page once per run, not once per step.
    """

    def __init__(self) -> None:
        self._flat: dict[tuple[str, torch.dtype, torch.device], Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Return the buffer `name` as a contiguous, uninitialised tensor.

        Args:
            name: Two buffers in use at the same time need two names.
            shape: Its shape for this use.
            like: Gives dtype and device.
        """
        key, size = (name, like.dtype, like.device), math.prod(shape)
        flat = self._flat.get(key)
        if flat is None or flat.numel() < size:
            # Dropped first: never hold the old and the grown one together.
            self._flat.pop(key, None)
            flat = self._flat[key] = torch.empty(size, dtype=like.dtype, device=like.device)
        return flat[:size].view(shape)

    def bytes(self) -> int:
        """Return the memory held now."""
        return sum(flat.numel() * flat.element_size() for flat in self._flat.values())


class Accumulator:
    """One weight gradient [F, D] that grows piece by piece; the first piece overwrites what was there.

    Args:
        out_FD: Memory for it.
        gemm: Library of the dense products.
    """

    def __init__(self, out_FD: Tensor, gemm: Gemm = "default") -> None:
        self._out_FD, self._gemm = out_FD, gemm
        self._fresh = True

    def add_pairs(self, pairs: ByLatent, values_P: Tensor, table_RD: Tensor) -> None:
        """Add `sum over a latent's pairs of value * table[row]` to each latent's row."""
        pairs.add_to_(self._out_FD, values_P, table_RD, fresh=self._fresh)
        self._fresh = False

    def add_product(self, left_RF: Tensor, right_RD: Tensor) -> None:
        """Add `left^T right`."""
        if self._fresh:
            product(self._gemm, left_RF.t(), right_RD, out=self._out_FD)
        else:
            add_product_(self._gemm, self._out_FD, left_RF.t(), right_RD)
        self._fresh = False

    def add_rows(self, latents_N: Tensor, rows_ND: Tensor) -> None:
        """Add rows to those of some latents."""
        self.total().index_add_(0, latents_N, rows_ND)

    def add_multiple(self, factors_F: Tensor, rows_FD: Tensor) -> None:
        """Add `factor * row` to every latent's row, or to each of the equal parts that rows are given in."""
        self.total().view(rows_FD.shape).addcmul_(factors_F[:, None], rows_FD)

    def total(self) -> Tensor:
        """Return the sum so far, [F, D]: the memory itself."""
        if self._fresh:
            self._out_FD.zero_()
            self._fresh = False
        return self._out_FD


def mask_where_zero_(values_RF: Tensor, acts_RF: Tensor) -> Tensor:
    """Set values to 0 where the (non-negative) activation is 0, in place: a ReLU's backward pass."""
    # Fused; multiplying by a boolean mask converts the mask to floats first.
    out: Tensor = torch.ops.aten.threshold_backward.grad_input(values_RF, acts_RF, 0, grad_input=values_RF)
    return out


def add_counts_(counts_F: Tensor, acts_RF: Tensor, buffer_RF: Tensor) -> None:
    """Add to each latent's count the rows in which its activation is not 0. `buffer_RF` is overwritten."""
    # Exact in float32: a chunk has far fewer than 2^24 rows.
    torch.ne(acts_RF, 0, out=buffer_RF)
    counts_F += buffer_RF.sum(0).to(torch.int64)


def in_window_(distance: Tensor, bandwidth: float, *, out: Tensor) -> Tensor:
    """Write 1 to `out` where JumpReLU's estimator sees the jump, `|h - threshold| < bandwidth / 2`; `distance` is overwritten."""
    # A mask of floats: a boolean one would be converted, in new memory.
    return torch.lt(distance.div_(bandwidth).abs_(), 0.5, out=out)
