"""What the paths of a JumpReLU step add to.

Shape suffixes: R = rows (tokens) of a piece, F = d_sae, D = d_in.
"""

from __future__ import annotations

import torch
from torch import Tensor

from saesweep.cohort.kernels.frame import Frame
from saesweep.specs.architectures import JumpReLUSpec


class JumpReLUSums:
    """Losses and gradients of one step as they grow, piece by piece."""

    def __init__(self, frame: Frame, spec: JumpReLUSpec) -> None:
        self.frame, self.spec = frame, spec
        self.weight = frame.knobs.l0_coefficient / frame.n_tokens
        self.threshold_F = frame.params["threshold"].to(frame.W_dec_FD.dtype)
        self.norm_F: Tensor = torch.linalg.vector_norm(frame.W_dec_FD, dim=1)
        self.mse, self.sparsity = frame.zero(), frame.zero()
        self.norm_grad_F, self.b_enc_grad_F, self.threshold_grad_F = (frame.zeros_F() for _ in range(3))
        self.firing_F = torch.zeros(frame.d_sae, dtype=torch.int64, device=frame.x_BD.device)

    def recon_grad(self, recon_RD: Tensor, rows: slice) -> Tensor:
        """Add the loss of these rows' reconstruction (without bias), and return its gradient there."""
        error_RD = self.frame.error(recon_RD, rows)
        self.mse += self.frame.mean_square(error_RD)
        grad_RD = self.frame.grad_of_(error_RD)
        self.frame.recon_grad_D += grad_RD.sum(0)
        return grad_RD

    def step_grad(self, l0_R: Tensor) -> Tensor:
        """Add the `step` or `quadratic` loss of these tokens' L0, and return its gradient at each pair's step, [R]."""
        l0_R = l0_R.to(self.norm_F.dtype)
        if self.spec.jumprelu_sparsity_loss_mode == "step":
            self.sparsity += self.weight * l0_R.sum()
            return torch.full_like(l0_R, self.weight)
        target = self.spec.target_l0
        if target is None:
            raise ValueError("jumprelu_sparsity_loss_mode quadratic needs target_l0")
        excess_R = l0_R - target
        self.sparsity += self.weight * 2.0 / target * excess_R.square().sum()
        return excess_R.mul_(self.weight * 4.0 / target)
