"""What the paths of a JumpReLU step add to, and the path of chunks in which nearly every pair is in the estimator's window, but few are active.

Wide windows are usual (the recipe of Anthropic's January 2025 update has one of 2). The thresholds' gradient is then dense, but
decoder, penalty and, without an estimate for the encoder, its gradient too see active pairs alone.

Shape suffixes: R = rows (tokens) of a chunk, F = d_sae, D = d_in, P = active pairs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from saesweep.cohort.kernels.frame import Frame
from saesweep.cohort.kernels.pairs import Pairs
from saesweep.cohort.kernels.penalised import COUNT_EVERY
from saesweep.cohort.kernels.scratch import in_window_
from saesweep.specs.architectures import JumpReLUSpec


class JumpReLUSums:
    """Losses and gradients of one step as they grow, piece by piece."""

    def __init__(self, frame: Frame, spec: JumpReLUSpec) -> None:
        self.frame, self.spec = frame, spec
        self.weight = frame.knobs.l0_coefficient / frame.n_tokens
        self.threshold_F = frame.params["threshold"].to(frame.W_dec_FD.dtype)
        self.norm_F: Tensor = frame.decoder_norms()
        self.mse, self.sparsity = frame.zero(), frame.zero()
        self.norm_grad_F, self.b_enc_grad_F, self.threshold_grad_F = (frame.zeros_F() for _ in range(3))
        self.firing_F = torch.zeros(frame.d_sae, dtype=torch.int64, device=frame.x_BD.device)

    def recon_grad(self, recon_RD: Tensor, rows: slice) -> Tensor:
        """Add the loss of these rows' reconstruction (without bias), and return its gradient there."""
        error_RD = self.frame.error(recon_RD, rows)
        self.mse += self.frame.mean_square(error_RD)
        grad_RD = self.frame.grad_of_(error_RD)
        self.frame.add_recon_grad(grad_RD, rows)
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


# Share of the crossover up to which this path is faster: it saves two or three of the dense products, and has yet to find the
# pairs. Measured at d_in 128 and 512.
_SHARE_OF_CROSSOVER = 0.45


@dataclass(frozen=True, kw_only=True)
class ActivePairs:
    """Active pairs of one chunk whose weight gradients are still to be added."""

    pairs: Pairs
    rows: slice
    acts_P: Tensor
    recon_grad_RD: Tensor
    hidden_grad_P: Tensor
    """Gradient at the pre-activations; the encoder's where it has no estimate."""


def is_wide(step: JumpReLUSums, hidden_RF: Tensor) -> bool:
    """Return whether so few of a dense chunk's pairs are active that this path is the faster one."""
    if hidden_RF.device.type != "cpu":
        # Dense products cost a GPU less than finding the pairs: 13.2 against 14.3 ms a step at 2304/16384 on an H100.
        return False
    sample_RF = hidden_RF[::COUNT_EVERY]
    n_active = int((sample_RF > step.threshold_F).count_nonzero())
    return n_active <= _SHARE_OF_CROSSOVER * step.frame.choice.dense_above * sample_RF.numel()


def wide_chunk(step: JumpReLUSums, rows: slice, hidden_RF: Tensor) -> ActivePairs:
    """Add a chunk's losses and gradients but for those of the weights by active pairs, which `add_all` adds.

    Args:
        step: What they are added to.
        rows: Which rows of the batch.
        hidden_RF: Their pre-activations; overwritten.
    """
    frame, spec, n_rows = step.frame, step.spec, hidden_RF.shape[0]
    flat_P = (hidden_RF > step.threshold_F).view(-1).nonzero().squeeze(1)
    rows_P = torch.div(flat_P, frame.d_sae, rounding_mode="floor")
    pairs = Pairs.of_rows(rows_P, flat_P - rows_P * frame.d_sae, n_rows, frame.choice.pairs)
    by_latent = pairs.by_latent(frame.d_sae)
    step.firing_F += by_latent.offsets_F1.diff()
    acts_P = hidden_RF.view(-1)[flat_P]
    recon_grad_RD = step.recon_grad(pairs.decode(acts_P, frame.W_dec_FD), rows)
    step_grad_R = None
    if spec.jumprelu_sparsity_loss_mode == "tanh":
        # Where nothing is active the slope is steepest; at active pairs that is put right.
        steepest, norm_P = step.weight * spec.jumprelu_tanh_scale, step.norm_F[pairs.cols_P]
        saturation_P = torch.tanh(spec.jumprelu_tanh_scale * acts_P * norm_P)
        step.sparsity += step.weight * saturation_P.sum()
        flatter_P = saturation_P.square().mul_(steepest)
        step.norm_grad_F += by_latent.sums((steepest - flatter_P) * acts_P)
        acts_grad_RF = frame.acts_grad(recon_grad_RD, "gradients", bias_F=steepest * step.norm_F)
        acts_grad_P = acts_grad_RF.view(-1)[flat_P].addcmul_(flatter_P, norm_P, value=-1)
        acts_grad_RF.view(-1)[flat_P] = acts_grad_P
    else:
        acts_grad_RF = frame.acts_grad(recon_grad_RD, "gradients")
        acts_grad_P = acts_grad_RF.view(-1)[flat_P]
        step_grad_R = step.step_grad(pairs.offsets_R1.diff())

    # estimate = window * (threshold * activation gradient + step gradient) / bandwidth
    width = spec.jumprelu_bandwidth
    window_RF = in_window_(hidden_RF.sub_(step.threshold_F), width, out=frame.chunk_buffer("window", n_rows))
    estimate_RF = acts_grad_RF.mul_(step.threshold_F / width)
    if step_grad_R is not None:
        estimate_RF += (step_grad_R / width)[:, None]
    estimate_RF *= window_RF
    estimate_F = estimate_RF.sum(0)
    step.threshold_grad_F -= estimate_F
    step.b_enc_grad_F += by_latent.sums(acts_grad_P)
    if spec.jumprelu_ste_to_input:
        step.b_enc_grad_F += estimate_F
        estimate_RF.view(-1)[flat_P] += acts_grad_P
        frame.grad_W_enc.add_product(estimate_RF, frame.inputs_BD[rows])
    return ActivePairs(pairs=pairs, rows=rows, acts_P=acts_P, recon_grad_RD=recon_grad_RD, hidden_grad_P=acts_grad_P)


def add_all(frame: Frame, chunks: list[ActivePairs], *, encoder: bool) -> None:
    """Add the weight gradients of all chunks at once: each addition goes through the whole of them.

    Args:
        frame: The step.
        chunks: What `wide_chunk` returned.
        encoder: Also the encoder's, which an estimate has not made dense.
    """
    if not chunks:
        return
    n_rows, table_rows = 0, []
    for chunk in chunks:
        table_rows.append(chunk.pairs.rows_P + n_rows)
        n_rows += chunk.pairs.n_rows
    cols_P = torch.cat([chunk.pairs.cols_P for chunk in chunks])
    joined = Pairs.of_rows(torch.cat(table_rows), cols_P, n_rows, frame.choice.pairs)
    by_latent = joined.by_latent(frame.d_sae)
    acts_P = torch.cat([chunk.acts_P for chunk in chunks])
    frame.grad_W_dec.add_pairs(by_latent, acts_P, torch.cat([chunk.recon_grad_RD for chunk in chunks]))
    if encoder:
        tokens_P = torch.cat([chunk.pairs.rows_P + chunk.rows.start for chunk in chunks])
        hidden_grad_P = torch.cat([chunk.hidden_grad_P for chunk in chunks])
        frame.grad_W_enc.add_pairs(
            replace(by_latent, rows_P=tokens_P[by_latent.order_P]), hidden_grad_P, frame.inputs_BD
        )
