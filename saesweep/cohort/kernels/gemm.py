"""Dense matrix products, by the library that start-up measurement chose.

Shape suffixes: R = rows (tokens), F = d_sae, D = d_in; M, K, N = rows, depth and columns of any product.
"""

from __future__ import annotations

import torch
from torch import Tensor

from saesweep.cohort.kernels.choice import Gemm
from saesweep.cohort.kernels.split import split_product


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
