"""Sparse step of the topk family (topk, batchtopk, matryoshka_batchtopk), and its auxiliary loss on the rows of dead latents alone.

Shape suffixes: B = tokens of the batch, R = tokens of a chunk, F = d_sae, N = dead latents, D = d_in, P = active pairs, L = matryoshka
levels (1 for the others). A pair of level l has the row `l B + token`: one table of gradients [L B, D] then serves all levels.
"""

from __future__ import annotations

import functools
from dataclasses import replace

import torch
from torch import Tensor

from saesweep.cohort.engine import StepGradients
from saesweep.cohort.kernels.frame import Frame
from saesweep.cohort.kernels.pairs import Pairs
from saesweep.cohort.kernels.scratch import Accumulator
from saesweep.cohort.kernels.selected import select_of_batch, select_of_rows
from saesweep.specs.architectures import BatchTopKSpec, MatryoshkaBatchTopKSpec, TopKFamilySpec


def dead_loss_(
    frame: Frame, error_BD: Tensor, dead_N: Tensor, norm_F: Tensor | None, b_enc_F: Tensor, coefficient: float
) -> tuple[Tensor, Tensor]:
    """Add the auxiliary loss's gradients to the frame; see `TopKFamily.dead_loss` for the formula.

    `h' / |d|` is `h` again where activations carry decoder norms, so the norms decide only which dead latents take part.

    Args:
        frame: The step.
        error_BD: `reconstruction - target`, whose negative the dead latents must reconstruct; a constant here.
        dead_N: The dead latents, at least one.
        norm_F: Decoder norms where they weigh the selection, else None.
        b_enc_F: Encoder bias.
        coefficient: The loss's weight, not yet scaled down for few dead latents.

    Returns:
        The weighted loss, and its gradient at the dead latents' encoder biases, [N].
    """
    n_dead, k_full = dead_N.shape[0], max(frame.d_out // 2, 1)
    weight = coefficient * min(n_dead / k_full, 1.0) / frame.n_tokens
    W_enc_ND, W_dec_ND, b_enc_N = frame.W_enc_FD[dead_N], frame.W_dec_FD[dead_N], b_enc_F[dead_N]
    norm_N = None if norm_F is None else norm_F[dead_N]
    grad_W_enc, grad_W_dec = Accumulator(torch.empty_like(W_enc_ND)), Accumulator(torch.empty_like(W_dec_ND))
    grad_b_N, loss = torch.zeros_like(b_enc_N), frame.zero()
    size = max(frame.choice.chunk_elements // max(2 * n_dead, 1), 16)
    for start in range(0, frame.n_tokens, size):
        rows = slice(start, start + size)
        inputs_RD = frame.inputs_BD[rows]
        hidden_RN = torch.addmm(b_enc_N, inputs_RD, W_enc_ND.t())
        taken_RK = None
        if k_full < n_dead:
            key_RN = hidden_RN if norm_N is None else hidden_RN * norm_N
            taken_RK = key_RN.topk(k_full, dim=-1, sorted=False).indices
        acts_RN = _only(hidden_RN, taken_RK)
        error_RD = (acts_RN @ W_dec_ND).add_(error_BD[rows])
        loss += torch.linalg.vector_norm(error_RD).square() * weight
        grad_RD = error_RD.mul_(2.0 * weight)
        grad_W_dec.add_product(acts_RN, grad_RD)
        grad_RN = _only(grad_RD @ W_dec_ND.t(), taken_RK)
        grad_W_enc.add_product(grad_RN, inputs_RD)
        grad_b_N += grad_RN.sum(0)
    frame.grad_W_dec.add_rows(dead_N, grad_W_dec.total())
    frame.grad_W_enc.add_rows(dead_N, grad_W_enc.total())
    return loss, grad_b_N


def _only(values_RN: Tensor, taken_RK: Tensor | None) -> Tensor:
    """Return the values with zeros where they are not taken; None: all are."""
    if taken_RK is None:
        return values_RN
    return torch.zeros_like(values_RN).scatter_(1, taken_RK, values_RN.gather(1, taken_RK))


def topk_step(frame: Frame, spec: TopKFamilySpec) -> StepGradients:
    """Return one step's gradients.

    Decoder norms are folded into the encoder for the selection, [F, D] work instead of [B, F]. Nothing flows back through
    them: `f / |d|` is the plain pre-activation at every active pair, so their gradient cancels exactly.
    """
    b_enc_F = frame.params["b_enc"]
    norm_F = frame.decoder_norms() if spec.rescale_acts_by_decoder_norm else None
    weights_FD, bias_F = frame.W_enc_FD, b_enc_F
    if norm_F is not None:
        weights_FD = torch.mul(frame.W_enc_FD, norm_F[:, None], out=frame.spare_FD())
        bias_F = b_enc_F * norm_F
    select = select_of_batch if isinstance(spec, BatchTopKSpec) else select_of_rows
    pairs, hidden_P = select(frame, weights_FD, bias_F)
    active_P = hidden_P > 0
    acts_P = hidden_P.clamp(min=0)
    if norm_F is not None:
        acts_P = acts_P / norm_F[pairs.cols_P]

    widths = _widths(frame, spec)
    if len(widths) > 1:
        pairs, order_P = _by_level(pairs, widths, frame.n_tokens)
        acts_P, active_P = acts_P[order_P], active_P[order_P]
    error_LBD = pairs.decode(acts_P, frame.W_dec_FD).view(len(widths), frame.n_tokens, frame.d_out)
    frame.error(error_LBD[0], slice(None))
    for level in range(1, len(widths)):
        error_LBD[level] += error_LBD[level - 1]

    losses = {"mse_loss": frame.mean_square(error_LBD[-1]), "auxiliary_reconstruction_loss": frame.zero()}
    for width, error_BD in zip(widths[:-1], error_LBD, strict=False):
        losses[f"inner_mse_loss_{width}"] = frame.mean_square(error_BD)

    b_enc_grad_F = frame.zeros_F()
    for level, dead_N in _dead_parts(frame, spec, widths):
        loss, grad_N = dead_loss_(frame, error_LBD[level], dead_N, norm_F, b_enc_F, spec.aux_loss_coefficient)
        losses["auxiliary_reconstruction_loss"] += loss
        b_enc_grad_F[dead_N] += grad_N

    grad_LBD = frame.grad_of_(error_LBD)
    for level in range(len(widths) - 2, -1, -1):
        # A latent reconstructs at its own level and at every wider one.
        grad_LBD[level] += grad_LBD[level + 1]
    frame.add_recon_grad(grad_LBD[0], slice(None))
    table = grad_LBD.view(-1, frame.d_out)

    hidden_grad_P = pairs.dots(table, frame.W_dec_FD).mul_(active_P)
    by_latent = pairs.by_latent(frame.d_sae)
    frame.grad_W_dec.add_pairs(by_latent, acts_P, table)
    token_P = by_latent.rows_P if len(widths) == 1 else by_latent.rows_P % frame.n_tokens
    frame.grad_W_enc.add_pairs(replace(by_latent, rows_P=token_P), hidden_grad_P, frame.inputs_BD)
    b_enc_grad_F += by_latent.sums(hidden_grad_P)
    firing_F = by_latent.counts(active_P)
    return frame.finish(losses, b_enc_grad_F, {"b_enc": b_enc_grad_F}, firing_F)


def _widths(frame: Frame, spec: TopKFamilySpec) -> tuple[int, ...]:
    inner = spec.inner_widths if isinstance(spec, MatryoshkaBatchTopKSpec) else ()
    return (*inner, frame.d_sae)


@functools.lru_cache(maxsize=32)
def _bounds(widths: tuple[int, ...], device: torch.device) -> Tensor:
    # Kept: handing values to a GPU waits for it.
    return torch.tensor(widths, device=device)


def _by_level(pairs: Pairs, widths: tuple[int, ...], n_tokens: int) -> tuple[Pairs, Tensor]:
    """Return the pairs with rows `level * n_tokens + token`, and where each stood before."""
    level_P = torch.bucketize(pairs.cols_P, _bounds(widths, pairs.cols_P.device), right=True)
    order_P = level_P.to(torch.int16).sort(stable=True).indices
    rows_P = (level_P * n_tokens + pairs.rows_P)[order_P]
    return Pairs.of_rows(rows_P, pairs.cols_P[order_P], len(widths) * n_tokens, pairs.kernels), order_P


def _dead_parts(frame: Frame, spec: TopKFamilySpec, widths: tuple[int, ...]) -> list[tuple[int, Tensor]]:
    """Return (level whose residual is to be reconstructed, dead latents that do it)."""
    dead_N = frame.dead_N
    if dead_N is None or dead_N.shape[0] == 0 or spec.aux_loss_coefficient == 0:
        return []
    if not (isinstance(spec, MatryoshkaBatchTopKSpec) and spec.use_matryoshka_aux_loss):
        return [(len(widths) - 1, dead_N)]
    level_N = torch.bucketize(dead_N, _bounds(widths, dead_N.device), right=True)
    parts = [(level, dead_N[level_N == level]) for level in range(len(widths))]
    return [(level, part_N) for level, part_N in parts if part_N.shape[0]]
