"""Sums of weight gradients over pieces of a batch, in memory that need not be cleared first.

Shape suffixes: R = rows (tokens) of a piece, F = d_sae, D = d_in, P = active pairs.
"""

from __future__ import annotations

from torch import Tensor

from saesweep.cohort.kernels.choice import Gemm
from saesweep.cohort.kernels.gemm import add_product_, product
from saesweep.cohort.kernels.pairs import ByLatent


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
        """Add `factor * row` to every latent's row."""
        self.total().addcmul_(factors_F[:, None], rows_FD)

    def total(self) -> Tensor:
        """Return the sum so far, [F, D]: the memory itself."""
        if self._fresh:
            self._out_FD.zero_()
            self._fresh = False
        return self._out_FD
