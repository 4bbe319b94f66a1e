"""Dense float32 matrix products, by the library that start-up measurement chose, or out of three half-precision ones.

The split product is for GPUs whose fp16 units are many times as fast. Each factor is split into two fp16 numbers,
`a = s (ah + al)`, that keep 22 bits of it: `a b = s t (ah bh + ah bl + al bh)`, summed in fp32. What is left out, `al bl`, is below
2^-22 of `|a| |b|`. The three products are one of three times the depth. A factor has one scale, so that numbers less than 2^-18 of its
largest keep fewer bits: errors are relative to the largest rows and columns.

Shape suffixes: R = rows (tokens), F = d_sae, D = d_in; M, K, N = rows, depth and columns of any product; in `_split`, R and C are the rows and
columns of a factor as it lies in memory.
"""

from __future__ import annotations

import torch
from torch import Tensor

from saesweep.cohort.kernels.choice import Gemm
from saesweep.cohort.kernels.pairs import triton_or_none


def linear(gemm: Gemm, inputs_RD: Tensor, W_FD: Tensor, b_F: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Return `inputs W^T + b`, [R, F]: the encoder's product.

    Args:
        gemm: `default` and `split_fp16` write into `out`. `onednn` calls oneDNN's float32 product by name, which leaves the
            process-wide precision switches alone, and returns memory of its own; float64 always takes the default.
        inputs_RD: Left factor.
        W_FD: Right factor, row per latent.
        b_F: Bias.
        out: Memory for the result, [R, F].
    """
    if gemm == "onednn" and inputs_RD.dtype == torch.float32:
        result: Tensor = torch.ops.mkldnn._linear_pointwise(inputs_RD, W_FD, b_F, "none", [], "")
        return result
    return product(gemm, inputs_RD, W_FD.t(), bias_N=b_F, out=out)


def product(
    gemm: Gemm, left_MK: Tensor, right_KN: Tensor, *, bias_N: Tensor | None = None, out: Tensor | None = None
) -> Tensor:
    """Return `left right + bias`, [M, N].

    Args:
        gemm: `split_fp16` for float32 factors; all others are PyTorch's own product here.
        left_MK: Left factor.
        right_KN: Right factor.
        bias_N: Added to every row; None for none.
        out: Memory for the result.
    """
    if gemm == "split_fp16" and left_MK.dtype == torch.float32:
        found = split_product(left_MK, right_KN, out_MN=out)
        return found if bias_N is None else found.add_(bias_N)
    if bias_N is None:
        return torch.mm(left_MK, right_KN, out=out)
    return torch.addmm(bias_N, left_MK, right_KN, out=out)


def add_product_(gemm: Gemm, total_MN: Tensor, left_MK: Tensor, right_KN: Tensor) -> None:
    """Add `left right` to the total."""
    if gemm == "split_fp16" and left_MK.dtype == torch.float32:
        total_MN.add_(split_product(left_MK, right_KN))
    else:
        total_MN.addmm_(left_MK, right_KN)


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
