"""One step of several SAEs of the topk family and of one shape as one batch of operations, so that how many are started does not grow with the SAEs.

Everything has the SAEs as its first dimension, and nothing adds numbers of one SAE to those of another. Sizes depend on the shape alone:
the step never asks the device for a number. So SAEs are padded to the same number of pairs, and the auxiliary loss takes the largest of the
dead latents wherever one may be dead, with a weight of 0 where none is.

Shape suffixes: N = SAEs, B = tokens of the batch, F = d_sae, D = d_in, P = pairs of all SAEs, L = matryoshka levels
(1 for the others): pairs of level l have the rows of all SAEs' tokens in the l-th place, as in topk.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from saesweep.cohort.kernels.choice import KernelChoice
from saesweep.cohort.kernels.pairs import Pairs, segment_sums
from saesweep.cohort.kernels.stacked_select import PIECE, StackShape, evened, k_full_of, stacked_select
from saesweep.saes import Params


@dataclass(frozen=True)
class StackedGradients:
    """What one step of a stack yields."""

    losses: dict[str, Tensor]
    """Weighted terms by SAELens' names, [N] each."""
    grads: Params
    """Gradient of every parameter, [N, ...], row per latent."""
    firing_NF: Tensor
    """Number of tokens of the batch at which each latent fired, int64."""


def loss_names(shape: StackShape) -> tuple[str, ...]:
    """Return the names of a stack's loss terms."""
    return "mse_loss", "auxiliary_reconstruction_loss", *(f"inner_mse_loss_{width}" for width in shape.inner_widths)


@torch.no_grad()
def stacked_step(
    shape: StackShape,
    params: Params,
    x_BD: Tensor,
    k_N: Tensor,
    aux_N: Tensor,
    dead_NF: Tensor | None,
    choice: KernelChoice,
) -> StackedGradients:
    """Return losses, gradients and firing counts of one batch of (scaled) activations.

    Args:
        shape: What the SAEs have in common.
        params: Their weights, row per latent: `W_enc` and `W_dec` [N, F, D], `b_enc` [N, F], `b_dec` [N, D]; not changed.
        x_BD: Activations.
        k_N: Active latents of each, per token or in the whole batch as the shape says; whole numbers of the type of the weights.
        aux_N: Coefficient of each auxiliary loss.
        dead_NF: True where a latent counts as dead; read where the shape says so.
        choice: Chunk size, and library of the products at pairs.
    """
    W_enc_NFD, W_dec_NFD, b_dec_ND = params["W_enc"], params["W_dec"], params["b_dec"]
    n_saes, d_sae, d_in = W_dec_NFD.shape
    n_tokens = x_BD.shape[0]
    x_BD = x_BD.to(W_dec_NFD.dtype)
    inputs_NBD = x_BD - b_dec_ND[:, None] if shape.is_centred else x_BD.expand(n_saes, n_tokens, d_in).contiguous()
    norm_NF = torch.linalg.vector_norm(W_dec_NFD, dim=-1) if shape.is_rescaled else None
    dead_NF = dead_NF if shape.reads_dead else None
    main, aux = stacked_select(shape, params, inputs_NBD, norm_NF, k_N, dead_NF, choice)
    W_dec, norms = W_dec_NFD.view(-1, d_in), None if norm_NF is None else norm_NF.view(-1)

    pairs, takes_part_P = main.pairs, (main.values_P > 0) & main.is_kept_P
    # Multiplied, not replaced: what is not a number must reach the loss.
    acts_P = _plain(main.values_P.clamp(min=0) * main.is_kept_P, pairs.cols_P, norms)
    fired_P = takes_part_P.to(acts_P.dtype)
    error_LNBD = pairs.decode(acts_P, W_dec).view(-1, n_saes, n_tokens, d_in)
    error_LNBD[0].add_(b_dec_ND[:, None]).sub_(x_BD)
    for wider, narrower in zip(error_LNBD[1:], error_LNBD[:-1], strict=True):
        wider += narrower
    mse = [sums_of_squares(error_NBD) / n_tokens for error_NBD in error_LNBD]
    grad_LNBD = error_LNBD.mul(2.0 / n_tokens)
    for level in range(len(mse) - 2, -1, -1):
        # A latent reconstructs at its own level and at every wider one.
        grad_LNBD[level] += grad_LNBD[level + 1]
    aux_loss_N, table = torch.zeros_like(mse[0]), grad_LNBD.view(-1, d_in)
    if aux is not None and dead_NF is not None:
        weight_N = (dead_NF.sum(1) / k_full_of(d_in)).clamp(max=1.0).to(aux_N.dtype) * aux_N / n_tokens
        aux_acts_P = _plain(aux.values_P.masked_fill(~aux.is_kept_P, 0.0), aux.pairs.cols_P, norms)
        aux_error_NBD = aux.pairs.decode(aux_acts_P, W_dec).view(n_saes, n_tokens, d_in).add_(error_LNBD[-1])
        aux_loss_N = sums_of_squares(aux_error_NBD) * weight_N
        table = torch.cat([table, aux_error_NBD.mul_((2.0 * weight_N)[:, None, None]).view(-1, d_in)])
        pairs = _one_after_the_other(pairs, aux.pairs)
        acts_P, takes_part_P = torch.cat([acts_P, aux_acts_P]), torch.cat([takes_part_P, aux.is_kept_P])
        fired_P = torch.cat([fired_P, torch.zeros_like(aux_acts_P)])

    hidden_grad_P = pairs.dots(table, W_dec).mul_(takes_part_P)
    by_latent = pairs.by_latent(n_saes * d_sae)
    grad_W_dec, grad_W_enc = torch.empty_like(W_dec), torch.empty_like(W_dec)
    by_latent.add_to_(grad_W_dec, acts_P, table, fresh=True)
    inputs = inputs_NBD.view(-1, d_in)
    of_inputs = by_latent if len(table) == len(inputs) else replace(by_latent, rows_P=by_latent.rows_P % len(inputs))
    of_inputs.add_to_(grad_W_enc, hidden_grad_P, inputs, fresh=True)
    grad_b_enc_NF = by_latent.sums(hidden_grad_P).view(n_saes, d_sae)
    grad_b_dec_ND = _sums_of_rows(grad_LNBD[0])
    if shape.is_centred:
        # Not by a matrix product: those of one row were seen to round differently for an SAE alone and among others.
        grad_b_dec_ND = grad_b_dec_ND - _sums_of_rows(W_enc_NFD * grad_b_enc_NF[:, :, None])
    grads = {
        "W_enc": grad_W_enc.view(n_saes, d_sae, d_in),
        "W_dec": grad_W_dec.view(n_saes, d_sae, d_in),
        "b_dec": grad_b_dec_ND,
        "b_enc": grad_b_enc_NF,
    }
    return StackedGradients(
        losses=dict(zip(loss_names(shape), (mse[-1], aux_loss_N, *mse[:-1]), strict=True)),
        grads={name: grads[name] for name in params},
        # Exact: far fewer than 2^24 tokens.
        firing_NF=by_latent.sums(fired_P).view(n_saes, d_sae).to(torch.int64),
    )


def _plain(values_P: Tensor, cols_P: Tensor, norms: Tensor | None) -> Tensor:
    """Return what decoder rows are multiplied by: without the norms that selection weighs by."""
    return values_P if norms is None else values_P / norms[cols_P]


def _one_after_the_other(first: Pairs, second: Pairs) -> Pairs:
    """Return pairs of twice the rows: those of the second have theirs after the first's."""
    return Pairs(
        torch.cat([first.rows_P, second.rows_P + first.n_rows]),
        torch.cat([first.cols_P, second.cols_P]),
        torch.cat([first.offsets_R1[:-1], second.offsets_R1 + first.cols_P.shape[0]]),
        first.kernels,
    )


def sums_of_squares(values: Tensor) -> Tensor:
    """Return each SAE's sum of squares [N] of values [N, ...], added up in an order that does not depend on the other SAEs."""
    squares = (torch.linalg.vector_norm(values, dim=-1) if values.ndim > 2 else values).square().flatten(1)
    pieces = _in_pieces(squares).sum(2)
    n_saes, n_pieces = pieces.shape
    return segment_sums(pieces.view(-1), torch.arange(n_saes + 1, device=pieces.device) * n_pieces)


def _sums_of_rows(table: Tensor) -> Tensor:
    """Return each SAE's sum of its rows, [N, D] of [N, rows, D]."""
    total: Tensor = _in_pieces(table).sum(2).sum(1)
    return total


def _in_pieces(values: Tensor) -> Tensor:
    """Return values [N, n, ...] as [N, pieces, length, ...].

    A long sum is divided among threads or blocks in ways that depend on how many sums there are; a piece is too short for that.
    """
    values = evened(values)
    return values.view(values.shape[0], -1, PIECE, *values.shape[2:])
