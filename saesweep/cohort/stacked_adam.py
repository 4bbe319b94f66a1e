"""One Adam step of several SAEs at once, each with its own learning rate, decays, step number and gradient clip, as tensors on the device.

Shape suffixes: N = SAEs; weights, moments and gradients are [N, ...].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from saesweep.cohort.kernels.stacked import sums_of_squares
from saesweep.cohort.optimizer import ADAM_EPS, CLIP_EPS


@dataclass(frozen=True)
class AdamScalars:
    """What differs between the SAEs of one step, [N] each."""

    size_N: Tensor
    """Learning rate with both bias corrections."""
    eps_N: Tensor
    """What is added to the root of the second moment, which is not corrected for its bias itself."""
    fresh1_N: Tensor
    """`1 - beta1`."""
    fresh2_N: Tensor
    """`1 - beta2`."""

    @staticmethod
    def of_step(step: int, lr: float, beta1: float, beta2: float) -> tuple[float, float, float, float]:
        """Return one SAE's four numbers for a step, counted from 1."""
        root = (1.0 - beta2**step) ** 0.5
        return lr * root / (1.0 - beta1**step), ADAM_EPS * root, 1.0 - beta1, 1.0 - beta2


@torch.no_grad()
def stacked_adam_step_(
    params: Mapping[str, Tensor],
    exp_avg: Mapping[str, Tensor],
    exp_avg_sq: Mapping[str, Tensor],
    grads: Mapping[str, Tensor],
    scalars: AdamScalars,
    *,
    max_grad_norm: float,
) -> Tensor:
    """Clip each SAE's gradients by their global norm and take one Adam step, in place: `adam_step_` for all of them.

    Args:
        params: Master weights.
        exp_avg: First moments.
        exp_avg_sq: Second moments.
        grads: Gradients; scratch afterwards.
        scalars: Of this step.
        max_grad_norm: Largest global gradient norm let through.

    Returns:
        Each SAE's gradient norm before clipping, [N]. Where one is not finite, that SAE's weights are spoilt.
    """
    norm_N = torch.stack([sums_of_squares(grad) for grad in grads.values()]).sum(0).sqrt()
    scale_N = ((norm_N + CLIP_EPS) / max_grad_norm).clamp(min=1.0).reciprocal()
    for name, weights in params.items():
        first, second, scratch = exp_avg[name], exp_avg_sq[name], grads[name]

        def each(scalar_N: Tensor, like: Tensor = weights) -> Tensor:
            return scalar_N.view(-1, *(1,) * (like.ndim - 1))

        scratch.mul_(each(scale_N))
        first.lerp_(scratch, each(scalars.fresh1_N))
        second.lerp_(scratch.square_(), each(scalars.fresh2_N))
        torch.sqrt(second, out=scratch)
        torch.div(first, scratch.add_(each(scalars.eps_N)), out=scratch)
        weights.addcmul_(scratch, each(scalars.size_N), value=-1.0)
    return norm_N
