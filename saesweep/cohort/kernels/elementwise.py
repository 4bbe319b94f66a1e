"""Small in-place operations on dense chunks [R, F] that need no temporary of their size."""

from __future__ import annotations

import torch
from torch import Tensor


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
