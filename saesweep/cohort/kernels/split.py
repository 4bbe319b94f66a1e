"""float32 matrix products out of three half-precision ones, for GPUs whose fp16 units are many times as fast.

Each factor is split into two fp16 numbers, `a = s (ah + al)`, that keep 22 bits of it: `a b = s t (ah bh + ah bl + al bh)`, summed in
fp32. What is left out, `al bl`, is below 2^-22 of `|a| |b|`. The three products are one of three times the depth. A factor has one
scale, so that numbers less than 2^-18 of its largest keep fewer bits: errors are relative to the largest rows and columns.

Shape suffixes: M, K, N = rows, depth and columns of a product; R, C = rows and columns of a factor as it lies in memory.
"""

from __future__ import annotations

import torch
from torch import Tensor

from saesweep.cohort.kernels.pairs import triton_or_none

# Factors are scaled so that their largest number is between this and its half.
_LARGEST = 2.0**15
# Largest number of a factor below which its scale grows no more: the product of two scales must stay finite.
_SMALLEST = 2.0**-45
_LEFT, _RIGHT = (True, True, False), (True, False, True)
"""Which of the three parts along the depth are the high ones."""


def split_product(left_MK: Tensor, right_KN: Tensor, *, out_MN: Tensor | None = None) -> Tensor:
    """Return `left right`, [M, N], for float32 factors; one that is neither contiguous nor a transposed view is copied.

    Args:
        left_MK: Left factor.
        right_KN: Right factor.
        out_MN: Memory for the result.
    """
    left_scale, left3 = _split(left_MK, _LEFT, depth=1)
    right_scale, right3 = _split(right_KN, _RIGHT, depth=0)
    out_MN = left_MK.new_empty(left_MK.shape[0], right_KN.shape[1]) if out_MN is None else out_MN
    if left_MK.device.type == "cpu":
        # The plain form of what a GPU computes, for tests.
        torch.mm(left3.float(), right3.float(), out=out_MN)
    else:
        torch.mm(left3, right3, out_dtype=torch.float32, out=out_MN)
    return out_MN.div_(left_scale * right_scale)


def _split(factor: Tensor, is_high: tuple[bool, bool, bool], depth: int) -> tuple[Tensor, Tensor]:
    """Return the factor's scale, and its three parts one after the other along the depth."""
    if not factor.is_contiguous() and factor.t().is_contiguous():
        scale, parts = _split(factor.t(), is_high, 1 - depth)
        return scale, parts.t()
    factor = factor.contiguous()
    largest = factor.abs().amax().clamp(min=_SMALLEST)
    scale = torch.exp2(torch.floor(torch.log2(_LARGEST / largest)))
    n_rows, n_columns = factor.shape
    shape = (3 * n_rows, n_columns) if depth == 0 else (n_rows, 3 * n_columns)
    out = torch.empty(shape, dtype=torch.float16, device=factor.device)
    fused = triton_or_none() if factor.device.type == "cuda" else None
    if fused is not None:
        fused.split(factor, scale, is_high, depth, out=out)
        return scale, out
    scaled = factor * scale
    high = scaled.half()
    low = (scaled - high).half()
    for part, take_high in zip(out.chunk(3, dim=depth), is_high, strict=True):
        part.copy_(high if take_high else low)
    return scale, out
