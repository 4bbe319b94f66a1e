"""Step of the gated architecture: a gate path with its own reconstruction loss, and a magnitude path.

With `u = x~ W_enc`: gate `pi = u + b_gate`, magnitude `mu = u exp(r_mag) + b_mag`, `f = 1[pi > 0] relu(mu)`, so that one matrix
product serves both paths. Pairs matter where `pi > 0`.

Shape suffixes: R = rows (tokens) of a piece, F = d_sae, D = d_in, P = active pairs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from saesweep.cohort.engine import StepGradients
from saesweep.cohort.kernels.frame import Frame
from saesweep.cohort.kernels.penalised import Piece, each_chunk
from saesweep.cohort.kernels.scratch import add_counts_, mask_where_zero_
from saesweep.specs.architectures import GatedSpec


def gated_step(frame: Frame, spec: GatedSpec) -> StepGradients:
    """Return one step's gradients."""
    step = _GatedStep(frame, spec)
    each_chunk(frame, frame.params["b_gate"], None, dense=step.dense, sparse=step.sparse)
    frame.grad_W_dec.add_multiple(step.weight * step.gate_sum_F / step.norm_F, frame.W_dec_FD)
    losses = {
        "mse_loss": step.mse,
        "l1_loss": step.weight * (step.gate_sum_F @ step.norm_F),
        "auxiliary_reconstruction_loss": step.aux,
    }
    small = {"b_gate": step.b_gate_grad_F, "b_mag": step.b_mag_grad_F, "r_mag": step.r_mag_grad_F}
    pre_act_grad_F = step.b_gate_grad_F + step.scale_F * step.b_mag_grad_F
    return frame.finish(losses, pre_act_grad_F, small, step.firing_F)


class _GatedStep:
    def __init__(self, frame: Frame, spec: GatedSpec) -> None:
        self.frame, self.detached = frame, spec.detach_aux_decoder
        self.weight = frame.knobs.l1_coefficient / frame.n_tokens
        self.norm_F = torch.linalg.vector_norm(frame.W_dec_FD, dim=1)
        self.scale_F, self.b_mag_F = frame.params["r_mag"].exp(), frame.params["b_mag"]
        # mu = pi exp(r) + (b_mag - b_gate exp(r))
        self.shift_F = self.b_mag_F - frame.params["b_gate"] * self.scale_F
        self.mse, self.aux = frame.zero(), frame.zero()
        self.gate_sum_F = frame.zeros_F()
        self.b_gate_grad_F, self.b_mag_grad_F, self.r_mag_grad_F = (frame.zeros_F() for _ in range(3))
        self.firing_F = torch.zeros(frame.d_sae, dtype=torch.int64, device=frame.x_BD.device)

    def _recon_grads(self, recon_RD: Tensor, via_gate_RD: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        """Turn two decoded sums into their losses' gradients, in place."""
        frame = self.frame
        error_RD, gate_error_RD = frame.error(recon_RD, rows), frame.error(via_gate_RD, rows)
        self.mse += frame.mean_square(error_RD)
        self.aux += frame.mean_square(gate_error_RD)
        grad_RD, gate_grad_RD = frame.grad_of_(error_RD), frame.grad_of_(gate_error_RD)
        frame.add_recon_grad(grad_RD, rows)
        if not self.detached:
            frame.add_recon_grad(gate_grad_RD, rows)
        return grad_RD, gate_grad_RD

    def sparse(self, piece: Piece) -> None:
        frame, pairs, gate_P = self.frame, piece.pairs, piece.hidden_P
        cols_P = pairs.cols_P
        scale_P = self.scale_F[cols_P]
        magnitude_P = torch.addcmul(self.shift_F[cols_P], gate_P, scale_P)
        acts_P = magnitude_P.clamp(min=0)
        grad_RD, gate_grad_RD = self._recon_grads(
            pairs.decode(acts_P, frame.W_dec_FD), pairs.decode(gate_P, frame.W_dec_FD), piece.rows
        )
        magnitude_grad_P = pairs.dots(grad_RD, frame.W_dec_FD).mul_(acts_P > 0)
        gate_grad_P = pairs.dots(gate_grad_RD, frame.W_dec_FD).add_(self.norm_F[cols_P], alpha=self.weight)
        by_latent = pairs.by_latent(frame.d_sae)
        self.gate_sum_F += by_latent.sums(gate_P)
        self.b_gate_grad_F += by_latent.sums(gate_grad_P)
        self.b_mag_grad_F += by_latent.sums(magnitude_grad_P)
        self.r_mag_grad_F += by_latent.sums(magnitude_grad_P * (magnitude_P - self.b_mag_F[cols_P]))
        self.firing_F += by_latent.counts(acts_P > 0)
        frame.grad_W_dec.add_pairs(by_latent, acts_P, grad_RD)
        if not self.detached:
            frame.grad_W_dec.add_pairs(by_latent, gate_P, gate_grad_RD)
        hidden_grad_P = gate_grad_P.addcmul_(magnitude_grad_P, scale_P)
        frame.grad_W_enc.add_pairs(by_latent, hidden_grad_P, frame.inputs_BD[piece.rows])

    def dense(self, rows: slice, hidden_RF: Tensor) -> None:
        frame, n_rows = self.frame, hidden_RF.shape[0]
        acts_RF = torch.mul(hidden_RF, self.scale_F, out=frame.chunk_buffer("activations", n_rows))
        acts_RF.add_(self.shift_F).relu_()
        gate_RF = hidden_RF.relu_()
        mask_where_zero_(acts_RF, gate_RF)
        grad_RD, gate_grad_RD = self._recon_grads(frame.decode(acts_RF), frame.decode(gate_RF), rows)
        frame.grad_W_dec.add_product(acts_RF, grad_RD)
        if not self.detached:
            frame.grad_W_dec.add_product(gate_RF, gate_grad_RD)
        self.gate_sum_F += gate_RF.sum(0)
        buffer_RF = frame.chunk_buffer("gradients", n_rows)
        add_counts_(self.firing_F, acts_RF, buffer_RF)

        magnitude_grad_RF = mask_where_zero_(frame.acts_grad(grad_RD, "gradients"), acts_RF)
        b_mag_grad_F = magnitude_grad_RF.sum(0)
        self.b_mag_grad_F += b_mag_grad_F
        # At active pairs f = u exp(r) + b_mag; elsewhere the gradient is 0.
        self.r_mag_grad_F += acts_RF.mul_(magnitude_grad_RF).sum(0) - b_mag_grad_F * self.b_mag_F
        # The activations are used up: their buffer takes the gate's gradient.
        gate_grad_RF = frame.acts_grad(gate_grad_RD, "activations", bias_F=self.weight * self.norm_F)
        mask_where_zero_(gate_grad_RF, gate_RF)
        self.b_gate_grad_F += gate_grad_RF.sum(0)
        hidden_grad_RF = gate_grad_RF.addcmul_(magnitude_grad_RF, self.scale_F)
        frame.grad_W_enc.add_product(hidden_grad_RF, frame.inputs_BD[rows])
