"""Step of the jumprelu architecture: every loss mode, with pairs inside the estimator's window besides the active ones.

Shape suffixes: R = rows (tokens) of a piece, F = d_sae, D = d_in, P = pairs that matter, N = dead latents.
"""

from __future__ import annotations

import torch
from torch import Tensor

from saesweep.cohort.engine import StepGradients
from saesweep.cohort.kernels.frame import Frame
from saesweep.cohort.kernels.jumprelu_wide import ActivePairs, JumpReLUSums, add_all, is_wide, wide_chunk
from saesweep.cohort.kernels.penalised import PENDING_PAIRS, Piece, each_chunk
from saesweep.cohort.kernels.scratch import in_window_
from saesweep.specs.architectures import JumpReLUSpec

# Pairs are gathered from slightly below the window, so that rounding cannot lose one; the window itself is exact.
_SLACK = 1e-3


def jumprelu_step(frame: Frame, spec: JumpReLUSpec) -> StepGradients:
    """Return one step's gradients."""
    step = _JumpReLUStep(frame, spec)
    threshold_F = step.threshold_F
    bound_F = threshold_F - spec.jumprelu_bandwidth * (0.5 + _SLACK) - _SLACK * threshold_F.abs()
    each_chunk(
        frame,
        frame.params["b_enc"],
        bound_F,
        dense=step.dense,
        sparse=step.sparse,
        seen=step.pre_act if step.pre_act_weight else None,
    )
    step.add_waiting()
    frame.add_norm_grad(step.norm_grad_F, step.norm_F)
    losses = {"mse_loss": step.mse, "l0_loss": step.sparsity}
    if spec.pre_act_loss_coefficient is not None:
        losses["pre_act_loss"] = step.pre_act_loss
    small = {"b_enc": step.b_enc_grad_F, "threshold": step.threshold_grad_F.to(frame.params["threshold"].dtype)}
    return frame.finish(losses, step.b_enc_grad_F, small, step.firing_F)


class _JumpReLUStep(JumpReLUSums):
    def __init__(self, frame: Frame, spec: JumpReLUSpec) -> None:
        super().__init__(frame, spec)
        self.pre_act_loss = frame.zero()
        self.waiting: list[ActivePairs] = []
        has_dead = frame.dead_N is not None and frame.dead_N.shape[0] > 0
        self.pre_act_weight = (spec.pre_act_loss_coefficient or 0.0) / frame.n_tokens if has_dead else 0.0

    def sparse(self, piece: Piece) -> None:
        frame, spec, pairs, hidden_P = self.frame, self.spec, piece.pairs, piece.hidden_P
        cols_P, by_latent = pairs.cols_P, pairs.by_latent(frame.d_sae)
        threshold_P, width = self.threshold_F[cols_P], spec.jumprelu_bandwidth
        active_P = hidden_P > threshold_P
        window_P = in_window_(hidden_P - threshold_P, width, out=torch.empty_like(hidden_P))
        acts_P = hidden_P * active_P
        grad_RD = self.recon_grad(pairs.decode(acts_P, frame.W_dec_FD), piece.rows)
        acts_grad_P = pairs.dots(grad_RD, frame.W_dec_FD)
        self.firing_F += by_latent.counts(active_P)
        jump_P = threshold_P * acts_grad_P
        if spec.jumprelu_sparsity_loss_mode == "tanh":
            norm_P = self.norm_F[cols_P]
            saturation_P = torch.tanh(spec.jumprelu_tanh_scale * acts_P * norm_P)
            self.sparsity += self.weight * saturation_P.sum()
            slope_P = (1 - saturation_P.square()).mul_(self.weight * spec.jumprelu_tanh_scale)
            acts_grad_P = acts_grad_P.addcmul_(slope_P, norm_P)
            self.norm_grad_F += by_latent.sums(slope_P * acts_P)
            jump_P = threshold_P * acts_grad_P
        else:
            jump_P += self.step_grad(pairs.counts_by_row(active_P))[pairs.rows_P]
        estimate_P = jump_P.mul_(window_P).div_(width)
        self.threshold_grad_F -= by_latent.sums(estimate_P)
        hidden_grad_P = acts_grad_P.mul_(active_P)
        if spec.jumprelu_ste_to_input:
            hidden_grad_P += estimate_P
        self.b_enc_grad_F += by_latent.sums(hidden_grad_P)
        frame.grad_W_dec.add_pairs(by_latent, acts_P, grad_RD)
        frame.grad_W_enc.add_pairs(by_latent, hidden_grad_P, frame.inputs_BD[piece.rows])

    def dense(self, rows: slice, hidden_RF: Tensor) -> None:
        if is_wide(self, hidden_RF):
            self.waiting.append(wide_chunk(self, rows, hidden_RF))
            if sum(chunk.acts_P.shape[0] for chunk in self.waiting) >= PENDING_PAIRS:
                self.add_waiting()
            return
        frame, spec, n_rows = self.frame, self.spec, hidden_RF.shape[0]
        width = spec.jumprelu_bandwidth
        active_RF = frame.chunk_buffer("active", n_rows)
        torch.gt(hidden_RF, self.threshold_F, out=active_RF)
        acts_RF = torch.mul(hidden_RF, active_RF, out=frame.chunk_buffer("activations", n_rows))
        grad_RD = self.recon_grad(frame.decode(acts_RF), rows)
        frame.grad_W_dec.add_product(acts_RF, grad_RD)
        self.firing_F += active_RF.sum(0).to(torch.int64)
        acts_grad_RF = frame.acts_grad(grad_RD, "gradients")
        window_RF = in_window_(hidden_RF.sub_(self.threshold_F), width, out=frame.chunk_buffer("window", n_rows))

        # estimate = window * (threshold * activation gradient + step gradient) / bandwidth
        if spec.jumprelu_sparsity_loss_mode == "tanh":
            saturation_RF = torch.mul(acts_RF, spec.jumprelu_tanh_scale * self.norm_F, out=hidden_RF).tanh_()
            self.sparsity += self.weight * saturation_RF.sum()
            steepest = saturation_RF.new_tensor(self.weight * spec.jumprelu_tanh_scale)
            # steepest * (1 - tanh^2), in one pass
            slope_RF = torch.addcmul(steepest, saturation_RF, saturation_RF, value=-float(steepest), out=saturation_RF)
            acts_grad_RF.addcmul_(slope_RF, self.norm_F)
            self.norm_grad_F += acts_RF.mul_(slope_RF).sum(0)
            estimate_RF = torch.mul(acts_grad_RF, self.threshold_F / width, out=acts_RF)
        else:
            step_grad_R = self.step_grad(active_RF.sum(1))
            estimate_RF = torch.mul(acts_grad_RF, self.threshold_F / width, out=acts_RF)
            estimate_RF += (step_grad_R / width)[:, None]
        estimate_RF *= window_RF
        self.threshold_grad_F -= estimate_RF.sum(0)
        if spec.jumprelu_ste_to_input:
            hidden_grad_RF = torch.addcmul(estimate_RF, acts_grad_RF, active_RF, out=acts_grad_RF)
        else:
            hidden_grad_RF = acts_grad_RF.mul_(active_RF)
        self.b_enc_grad_F += hidden_grad_RF.sum(0)
        frame.grad_W_enc.add_product(hidden_grad_RF, frame.inputs_BD[rows])

    def add_waiting(self) -> None:
        """Add the weight gradients of the chunks that went by their active pairs."""
        add_all(self.frame, self.waiting, encoder=not self.spec.jumprelu_ste_to_input)
        self.waiting.clear()

    def pre_act(self, rows: slice, hidden_RF: Tensor) -> None:
        """Add the loss that pulls dead latents' pre-activations up to their thresholds, on their rows alone."""
        dead_N, weight = self.frame.dead_N, self.pre_act_weight
        if dead_N is None:
            raise ValueError("the pre-activation loss needs to know which latents are dead")
        norm_N = self.norm_F[dead_N]
        below_RN = (self.threshold_F[dead_N] - hidden_RF[:, dead_N]).relu_()
        below_sum_N = below_RN.sum(0)
        self.pre_act_loss += weight * (below_sum_N @ norm_N)
        self.norm_grad_F[dead_N] += weight * below_sum_N
        counted_RN = below_RN.sign_()
        pull_N = weight * norm_N * counted_RN.sum(0)
        self.threshold_grad_F[dead_N] += pull_N
        self.b_enc_grad_F[dead_N] -= pull_N
        toward_ND = counted_RN.t() @ self.frame.inputs_BD[rows]
        self.frame.grad_W_enc.add_rows(dead_N, toward_ND.mul_(-weight * norm_N[:, None]))
