"""Active (token, latent) pairs and the four sparse products that a step is made of.

Shape suffixes: R = rows of the batch (tokens), F = d_sae, D = d_in, P = active pairs, S = segments.
"""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass
from types import ModuleType
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

# Gathered rows held at once where there is no fused kernel for the dot products: 64 MB of float32.
_GATHER_ELEMENTS = 1 << 24

PairKernels = Literal["torch", "triton"]
"""Library of the products at pairs: PyTorch's operators, or Triton kernels (GPUs alone)."""


@functools.cache
def triton_or_none() -> ModuleType | None:
    """Return the Triton kernels, or None where they are not to be had.

    PyTorch's CUDA builds bring Triton along, but it needs a C compiler and Python's headers, which small images lack.
    """
    try:
        from saesweep.cohort.kernels import triton_kernels
    except ImportError:
        return None
    if torch.cuda.is_available():
        try:
            triton_kernels.probe()
        except Exception as error:  # whatever a compiler can raise
            warnings.warn(f"Triton does not work here, slower operators take its place: {error}", stacklevel=2)
            return None
    return triton_kernels


@dataclass(frozen=True)
class ByLatent:
    """The pairs in the order of their latents: a transposed CSR matrix without its values."""

    order_P: Tensor
    """Where each pair, in latent order, stands in row order."""
    rows_P: Tensor
    """Row of each pair, in latent order; ascending within a latent."""
    offsets_F1: Tensor
    """Start of each latent's pairs, and the end, [F + 1]."""
    cols_P: Tensor
    """Latent of each pair, in row order."""
    kernels: PairKernels = "torch"

    def sums(self, values_P: Tensor) -> Tensor:
        """Return the sum of each latent's values, [F]; values in row order."""
        if values_P.device.type != "cuda":
            return torch.bincount(self.cols_P, weights=values_P, minlength=self.offsets_F1.shape[0] - 1)
        # CUDA's bincount adds in any order, and waits for the GPU.
        return segment_sums(values_P[self.order_P], self.offsets_F1)

    def counts(self, chosen_P: Tensor) -> Tensor:
        """Return the number of each latent's chosen pairs, int64 [F]; the choice in row order."""
        if chosen_P.device.type != "cuda":
            return torch.bincount(self.cols_P[chosen_P], minlength=self.offsets_F1.shape[0] - 1)
        return segment_sums(chosen_P[self.order_P].float(), self.offsets_F1).to(torch.int64)

    def add_to_(self, out_FD: Tensor, values_P: Tensor, table_RD: Tensor, *, fresh: bool) -> None:
        """Add `sum over a latent's pairs of value * table[row]` to every latent's row of `out_FD`.

        Args:
            out_FD: Accumulates, [F, D].
            values_P: In row order.
            table_RD: What is weighted: the gradient at the reconstruction, or the encoder's input.
            fresh: Overwrite `out_FD` instead, which may be uninitialised.
        """
        fused = triton_or_none() if self.kernels == "triton" else None
        if fused is not None:
            fused.weighted_sums(
                self.rows_P, values_P[self.order_P], self.offsets_F1, table_RD, out_SD=out_FD, add=not fresh
            )
            return
        sums_FD = embedding_bag(
            self.rows_P, table_RD, self.offsets_F1[:-1], mode="sum", per_sample_weights=values_P[self.order_P]
        )
        if fresh:
            out_FD.copy_(sums_FD)
        else:
            out_FD.add_(sums_FD)


@dataclass(frozen=True)
class Pairs:
    """Active pairs in row order: a CSR matrix without its values."""

    rows_P: Tensor
    """Row of each pair, ascending, int64."""
    cols_P: Tensor
    """Latent of each pair, int64, in any order within a row."""
    offsets_R1: Tensor
    """Start of each row's pairs, and the end, [R + 1]."""
    kernels: PairKernels = "torch"

    @classmethod
    def uniform(cls, cols_RK: Tensor, kernels: PairKernels = "torch") -> Pairs:
        """Return the pairs of a selection with the same number of latents in each row."""
        n_rows, k = cols_RK.shape
        steps = torch.arange(n_rows + 1, device=cols_RK.device)
        rows_P = steps[:-1, None].expand(n_rows, k).reshape(-1)
        return cls(rows_P, cols_RK.reshape(-1), steps * k, kernels)

    @classmethod
    def of_rows(cls, rows_P: Tensor, cols_P: Tensor, n_rows: int, kernels: PairKernels = "torch") -> Pairs:
        """Return pairs given by ascending rows."""
        return cls(rows_P, cols_P, _offsets(rows_P, n_rows), kernels)

    @property
    def n_rows(self) -> int:
        """Number of rows, those without a pair included."""
        return self.offsets_R1.shape[0] - 1

    def decode(self, values_P: Tensor, table_FD: Tensor) -> Tensor:
        """Return `sum over a row's pairs of value * table[latent]`, [R, D]."""
        fused = triton_or_none() if self.kernels == "triton" else None
        if fused is not None:
            out_RD = table_FD.new_empty(self.n_rows, table_FD.shape[1])
            found: Tensor = fused.weighted_sums(
                self.cols_P, values_P, self.offsets_R1, table_FD, out_SD=out_RD, add=False
            )
            return found
        return embedding_bag(self.cols_P, table_FD, self.offsets_R1[:-1], mode="sum", per_sample_weights=values_P)

    def dots(self, left_RD: Tensor, right_FD: Tensor) -> Tensor:
        """Return `left[row] . right[latent]` at every pair, [P]."""
        fused = triton_or_none() if self.kernels == "triton" else None
        if fused is not None:
            found: Tensor = fused.dots(self.rows_P, self.cols_P, left_RD, right_FD)
            return found
        if left_RD.device.type == "cpu":
            return self._dots_fused(left_RD, right_FD)
        # cuSPARSE's sampled product is slower than gathering (and needs sorted columns).
        out_P = torch.empty(self.rows_P.shape, dtype=left_RD.dtype, device=left_RD.device)
        step = max(_GATHER_ELEMENTS // left_RD.shape[1], 1)
        for i in range(0, self.rows_P.shape[0], step):
            piece = slice(i, i + step)
            out_P[piece] = (left_RD[self.rows_P[piece]] * right_FD[self.cols_P[piece]]).sum(-1)
        return out_P

    def by_latent(self, n_latents: int) -> ByLatent:
        """Return the same pairs sorted by latent; one sort serves both weight gradients."""
        # The sort is a radix sort, whose passes follow the width of the key.
        narrow = self.cols_P.to(torch.int16 if n_latents < 1 << 15 else torch.int32)
        sorted_P = narrow.sort(stable=True)
        order_P = sorted_P.indices
        offsets_F1 = _offsets(self.cols_P if narrow.device.type != "cuda" else sorted_P.values, n_latents)
        return ByLatent(order_P, self.rows_P[order_P], offsets_F1, self.cols_P, self.kernels)

    def sums_by_row(self, values_P: Tensor) -> Tensor:
        """Return the sum of each row's values, [R]."""
        if values_P.device.type != "cuda":
            return torch.bincount(self.rows_P, weights=values_P, minlength=self.n_rows)
        return segment_sums(values_P, self.offsets_R1)

    def counts_by_row(self, chosen_P: Tensor) -> Tensor:
        """Return the number of each row's chosen pairs, [R]."""
        if chosen_P.device.type != "cuda":
            return torch.bincount(self.rows_P[chosen_P], minlength=self.n_rows)
        return segment_sums(chosen_P.float(), self.offsets_R1)

    def _dots_fused(self, left_RD: Tensor, right_FD: Tensor) -> Tensor:
        _announce_csr_once()
        pattern = torch.sparse_csr_tensor(
            self.offsets_R1,
            self.cols_P,
            torch.zeros(self.cols_P.shape, dtype=left_RD.dtype),
            (self.n_rows, right_FD.shape[0]),
            check_invariants=False,
        )
        found: Tensor = torch.sparse.sampled_addmm(pattern, left_RD, right_FD.t(), beta=0.0)
        return found.values()


def segment_sums(values_P: Tensor, offsets_S1: Tensor) -> Tensor:
    """Return the sum of each segment's values, [S]; segments lie one after the other."""
    found: Tensor = torch.segment_reduce(values_P, "sum", offsets=offsets_S1)
    return found


def _offsets(keys_P: Tensor, n_keys: int) -> Tensor:
    """Return where each key's pairs start, and the end, [n_keys + 1]; CUDA needs ascending keys."""
    if keys_P.device.type == "cuda":
        # bincount would wait for the GPU, twice.
        return torch.searchsorted(keys_P, torch.arange(n_keys + 1, dtype=keys_P.dtype, device=keys_P.device))
    counts = torch.bincount(keys_P, minlength=n_keys)
    return torch.nn.functional.pad(counts.cumsum(0), (1, 0))


@functools.cache
def _announce_csr_once() -> None:
    # PyTorch warns once per process that CSR tensors are in beta; a user can do nothing about it.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.sparse_csr_tensor(
            torch.zeros(2, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), torch.zeros(0), (1, 1)
        )
