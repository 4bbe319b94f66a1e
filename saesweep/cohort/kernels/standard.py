"""Step of the standard architecture: ReLU and an Lp penalty weighted by decoder norms.

Shape suffixes: R = rows (tokens) of a piece, F = d_sae, D = d_in, P = active pairs.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from saesweep.cohort.engine import StepGradients
from saesweep.cohort.kernels.frame import Frame
from saesweep.cohort.kernels.pairs import Pairs
from saesweep.cohort.kernels.penalised import Piece, each_chunk
from saesweep.cohort.kernels.scratch import add_counts_, mask_where_zero_
from saesweep.specs.architectures import StandardSpec


def standard_step(frame: Frame, spec: StandardSpec) -> StepGradients:
    """Return one step's gradients."""
    step = _StandardStep(frame, spec)
    each_chunk(frame, frame.params["b_enc"], None, dense=step.dense, sparse=step.sparse)
    frame.add_norm_grad(step.norm_grad_F, step.norm_F)
    losses = {"mse_loss": step.mse, "l1_loss": step.l1}
    found = frame.finish(losses, step.b_enc_grad_F, {"b_enc": step.b_enc_grad_F}, step.firing_F)
    return found if step.next_p is None else replace(found, observed=torch.stack([step.size, step.next_size]))


class _StandardStep:
    def __init__(self, frame: Frame, spec: StandardSpec) -> None:
        knobs = frame.knobs
        self.frame, self.p = frame, spec.lp_norm if knobs.lp_norm is None else knobs.lp_norm
        self.next_p = None if knobs.lp_norm is None else knobs.next_lp_norm
        self.is_power = spec.sparsity_function == "Lp^p"
        self.weight = frame.knobs.l1_coefficient / frame.n_tokens
        self.norm_F: Tensor = frame.decoder_norms()
        self.mse, self.l1 = frame.zero(), frame.zero()
        self.size, self.next_size = frame.zero(), frame.zero()
        self.norm_grad_F, self.b_enc_grad_F = frame.zeros_F(), frame.zeros_F()
        self.firing_F = torch.zeros(frame.d_sae, dtype=torch.int64, device=frame.x_BD.device)

    def sparse(self, piece: Piece) -> None:
        frame, pairs, acts_P = self.frame, piece.pairs, piece.hidden_P
        error_RD = frame.error(pairs.decode(acts_P, frame.W_dec_FD), piece.rows)
        self.mse += frame.mean_square(error_RD)
        grad_RD = frame.grad_of_(error_RD)
        frame.add_recon_grad(grad_RD, piece.rows)
        norm_P = self.norm_F[pairs.cols_P]
        penalty_grad_P = self._penalty_grad(acts_P * norm_P, pairs)
        grad_P = pairs.dots(grad_RD, frame.W_dec_FD).addcmul_(penalty_grad_P, norm_P)
        by_latent = pairs.by_latent(frame.d_sae)
        self.norm_grad_F += by_latent.sums(penalty_grad_P * acts_P)
        self.b_enc_grad_F += by_latent.sums(grad_P)
        self.firing_F += by_latent.offsets_F1.diff()
        frame.grad_W_dec.add_pairs(by_latent, acts_P, grad_RD)
        frame.grad_W_enc.add_pairs(by_latent, grad_P, frame.inputs_BD[piece.rows])

    def _penalty_grad(self, weighted_P: Tensor, pairs: Pairs) -> Tensor:
        """Add to the loss, and return its gradient at the weighted activations, all positive."""
        p = self.p
        if self.next_p is not None:
            self.size += self._sum_of_pairs(weighted_P, pairs, p) / self.frame.n_tokens
            self.next_size += self._sum_of_pairs(weighted_P, pairs, self.next_p) / self.frame.n_tokens
        if self.is_power:
            self.l1 += self.weight * weighted_P.pow(p).sum()
            return weighted_P.pow(p - 1.0).mul_(self.weight * p)
        if p == 1.0:
            self.l1 += self.weight * weighted_P.sum()
            return torch.full_like(weighted_P, self.weight)
        norm_R = pairs.sums_by_row(weighted_P.pow(p)).pow(1.0 / p)
        self.l1 += self.weight * norm_R.sum()
        return self.weight * (weighted_P / norm_R[pairs.rows_P]).pow(p - 1.0)

    def _sum_of_pairs(self, weighted_P: Tensor, pairs: Pairs, p: float) -> Tensor:
        """Return the penalty of a piece's tokens, without its coefficient."""
        if self.is_power:
            return weighted_P.pow(p).sum()
        return pairs.sums_by_row(weighted_P.pow(p)).pow(1.0 / p).sum()

    def dense(self, rows: slice, hidden_RF: Tensor) -> None:
        frame = self.frame
        acts_RF = hidden_RF.relu_()
        error_RD = frame.error(frame.decode(acts_RF), rows)
        self.mse += frame.mean_square(error_RD)
        grad_RD = frame.grad_of_(error_RD)
        frame.add_recon_grad(grad_RD, rows)
        add_counts_(self.firing_F, acts_RF, frame.chunk_buffer("gradients", acts_RF.shape[0]))
        frame.grad_W_dec.add_product(acts_RF, grad_RD)
        if self.next_p is not None:
            weighted_RF = acts_RF * self.norm_F
            self.size += self._sum_of_rows(weighted_RF, self.p) / frame.n_tokens
            self.next_size += self._sum_of_rows(weighted_RF, self.next_p) / frame.n_tokens
        if self.p == 1.0:
            summed_F = acts_RF.sum(0)
            self.l1 += self.weight * (summed_F @ self.norm_F)
            self.norm_grad_F += self.weight * summed_F
            grad_RF = frame.acts_grad(grad_RD, "gradients", bias_F=self.weight * self.norm_F)
        else:
            penalty_grad_RF = self._dense_penalty_grad(acts_RF)
            self.norm_grad_F += (penalty_grad_RF * acts_RF).sum(0)
            grad_RF = frame.acts_grad(grad_RD, "gradients").addcmul_(penalty_grad_RF, self.norm_F)
        mask_where_zero_(grad_RF, acts_RF)
        self.b_enc_grad_F += grad_RF.sum(0)
        frame.grad_W_enc.add_product(grad_RF, frame.inputs_BD[rows])

    def _sum_of_rows(self, weighted_RF: Tensor, p: float) -> Tensor:
        if self.is_power:
            return weighted_RF.pow(p).sum()  # 0 to a positive power is 0
        norms_R: Tensor = torch.linalg.vector_norm(weighted_RF, ord=p, dim=1)
        return norms_R.sum()

    def _dense_penalty_grad(self, acts_RF: Tensor) -> Tensor:
        weighted_RF: Tensor = acts_RF * self.norm_F
        if self.is_power:
            self.l1 += self.weight * weighted_RF.pow(self.p).sum()
            power_grad_RF = weighted_RF.pow_(self.p - 1.0).mul_(self.weight * self.p)
            return power_grad_RF.masked_fill_(acts_RF == 0, 0.0)
        norm_R1: Tensor = torch.linalg.vector_norm(weighted_RF, ord=self.p, dim=1, keepdim=True)
        self.l1 += self.weight * norm_R1.sum()
        # Where nothing is active, 0/0 or a negative power of 0: no gradient there, as in torch.norm's own derivative.
        ratio_RF = weighted_RF.div_(norm_R1).pow_(self.p - 1.0).mul_(self.weight)
        return ratio_RF.masked_fill_(acts_RF == 0, 0.0)
