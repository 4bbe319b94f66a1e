"""The encoder's matrix product, by the library that start-up measurement chose.

Shape suffixes: R = rows (tokens), F = d_sae, D = d_in.
"""

from __future__ import annotations

import torch
from torch import Tensor

from saesweep.cohort.kernels.choice import Gemm


def linear(gemm: Gemm, inputs_RD: Tensor, W_FD: Tensor, b_F: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Return `inputs W^T + b`, [R, F].

    Args:
        gemm: `default` writes into `out`. `onednn` calls oneDNN's float32 product by name, which leaves the process-wide
            precision switches alone, and returns memory of its own; float64 always takes the default.
        inputs_RD: Left factor.
        W_FD: Right factor, row per latent.
        b_F: Bias.
        out: Memory for the result, [R, F].
    """
    if gemm == "onednn" and inputs_RD.dtype == torch.float32:
        result: Tensor = torch.ops.mkldnn._linear_pointwise(inputs_RD, W_FD, b_F, "none", [], "")
        return result
    return torch.addmm(b_F, inputs_RD, W_FD.t(), out=out)
