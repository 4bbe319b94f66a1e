"""One step of several topk SAEs of one shape as one batch of operations, so that how many are started does not grow with the SAEs.

Everything has the SAEs as its first dimension, and nothing adds numbers of one SAE to those of another. Sizes depend on the shape alone:
the step never asks the device for a number. So SAEs are padded to the same number of pairs, and the auxiliary loss takes the largest of the
dead latents wherever one may be dead, with a weight of 0 where none is.

Shape suffixes: N = SAEs, B = tokens of the batch, R = tokens of a chunk, F = d_sae, D = d_in, K = pairs of a token, A = pairs of a token in
the auxiliary loss, P = all pairs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from saesweep.cohort.kernels.choice import KernelChoice
from saesweep.cohort.kernels.pairs import Pairs, segment_sums
from saesweep.cohort.kernels.select import top_rows
from saesweep.saes import Params

_PIECE = 64


@dataclass(frozen=True)
class StackShape:
    """What SAEs must have in common to be stacked, besides the sizes and types of their weights."""

    width: int
    """Pairs of a token: at least every member's k."""
    is_centred: bool
    """`apply_b_dec_to_input`."""
    is_rescaled: bool
    """`rescale_acts_by_decoder_norm`."""
    reads_dead: bool
    """Whether a latent may be dead and an auxiliary loss see it."""


@dataclass(frozen=True)
class StackedGradients:
    """What one step of a stack yields."""

    losses: dict[str, Tensor]
    """Weighted terms by SAELens' names, [N] each."""
    grads: Params
    """Gradient of every parameter, [N, ...], row per latent."""
    firing_NF: Tensor
    """Number of tokens of the batch at which each latent fired, int64."""


@dataclass(frozen=True)
class _Taken:
    """The pairs that selection took, and their values."""

    values_NBK: Tensor
    """Pre-activations, weighed by decoder norms where selection is."""
    cols_NBK: Tensor
    """Rows of the weights of all SAEs, one after the other."""


def width_for(k: int) -> int:
    """Return the pairs of a token in the stack of an SAE with that k: the next power of two, so that few stacks hold many k."""
    return 1 << max(k - 1, 0).bit_length()


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
        k_N: Active latents per token of each, whole numbers of the type of the weights.
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
    main, aux = _select(shape, params, inputs_NBD, norm_NF, dead_NF, choice)
    W_dec, norms = W_dec_NFD.view(-1, d_in), None if norm_NF is None else norm_NF.view(-1)

    in_k_N1K = torch.arange(shape.width, device=k_N.device) < k_N[:, None, None]
    active_NBK = (main.values_NBK > 0) & in_k_N1K
    # Multiplied, not replaced: what is not a number must reach the loss.
    acts_P = _plain((main.values_NBK.clamp(min=0) * in_k_N1K).view(-1), main.cols_NBK.view(-1), norms)
    pairs = Pairs.uniform(main.cols_NBK.view(-1, shape.width), choice.pairs)
    error_NBD = pairs.decode(acts_P, W_dec).view(n_saes, n_tokens, d_in)
    error_NBD.add_(b_dec_ND[:, None]).sub_(x_BD)
    mse_N = sums_of_squares(error_NBD) / n_tokens
    aux_loss_N, tables, takes_part_P = torch.zeros_like(mse_N), [error_NBD.mul(2.0 / n_tokens)], active_NBK.view(-1)
    if aux is not None and dead_NF is not None:
        k_full = _k_full(d_in)
        weight_N = (dead_NF.sum(1) / k_full).clamp(max=1.0).to(aux_N.dtype) * aux_N / n_tokens
        # Fewer dead latents than take part at most: the rest of what was taken is alive.
        is_dead_P = (aux.values_NBK > -torch.inf).view(-1)
        aux_acts_P = _plain(aux.values_NBK.view(-1).masked_fill(~is_dead_P, 0.0), aux.cols_NBK.view(-1), norms)
        aux_pairs = Pairs.uniform(aux.cols_NBK.view(-1, aux.cols_NBK.shape[-1]), choice.pairs)
        aux_error_NBD = aux_pairs.decode(aux_acts_P, W_dec).view(n_saes, n_tokens, d_in).add_(error_NBD)
        aux_loss_N = sums_of_squares(aux_error_NBD) * weight_N
        tables.append(aux_error_NBD.mul_((2.0 * weight_N)[:, None, None]))
        acts_P, takes_part_P = torch.cat([acts_P, aux_acts_P]), torch.cat([takes_part_P, is_dead_P])
        pairs = _one_after_the_other(pairs, aux_pairs)

    table = tables[0].view(-1, d_in) if len(tables) == 1 else torch.cat(tables).view(-1, d_in)
    hidden_grad_P = pairs.dots(table, W_dec).mul_(takes_part_P)
    by_latent = pairs.by_latent(n_saes * d_sae)
    grad_W_dec, grad_W_enc = torch.empty_like(W_dec), torch.empty_like(W_dec)
    by_latent.add_to_(grad_W_dec, acts_P, table, fresh=True)
    inputs = inputs_NBD.view(-1, d_in)
    of_inputs = by_latent if len(tables) == 1 else replace(by_latent, rows_P=by_latent.rows_P % inputs.shape[0])
    of_inputs.add_to_(grad_W_enc, hidden_grad_P, inputs, fresh=True)
    grad_b_enc_NF = by_latent.sums(hidden_grad_P).view(n_saes, d_sae)
    fired_P = active_NBK.view(-1).to(acts_P.dtype)
    if len(tables) > 1:
        fired_P = torch.cat([fired_P, fired_P.new_zeros(acts_P.shape[0] - fired_P.shape[0])])
    grad_b_dec_ND = _sums_of_rows(tables[0])
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
        losses={"mse_loss": mse_N, "auxiliary_reconstruction_loss": aux_loss_N},
        grads={name: grads[name] for name in params},
        # Exact: far fewer than 2^24 tokens.
        firing_NF=by_latent.sums(fired_P).view(n_saes, d_sae).to(torch.int64),
    )


def _select(
    shape: StackShape,
    params: Params,
    inputs_NBD: Tensor,
    norm_NF: Tensor | None,
    dead_NF: Tensor | None,
    choice: KernelChoice,
) -> tuple[_Taken, _Taken | None]:
    """Return each token's largest pre-activations, in falling order, and the largest of its dead latents."""
    W_NFD, b_NF = params["W_enc"], params["b_enc"]
    if norm_NF is not None:
        W_NFD, b_NF = W_NFD * norm_NF[:, :, None], b_NF * norm_NF
    n_saes, d_sae, d_in = W_NFD.shape
    first_N11 = (torch.arange(n_saes, device=W_NFD.device) * d_sae)[:, None, None]
    n_dead = min(_k_full(d_in), d_sae)

    def taken(hidden_NRF: Tensor, n_rows: int, k: int) -> _Taken:
        values, latents = top_rows(hidden_NRF.view(-1, d_sae), k, falling=True)
        return _Taken(values.view(n_saes, -1, k)[:, :n_rows], (latents.view(n_saes, -1, k) + first_N11)[:, :n_rows])

    main, aux = [], []
    # A whole number of pieces each, as many whatever the number of SAEs: a library's threads may be left with a single row of others,
    # which it multiplies in another order.
    rows = max(choice.chunk_rows(d_sae) // _PIECE, 1) * _PIECE
    for inputs_NRD in inputs_NBD.split(rows, dim=1):
        n_rows = inputs_NRD.shape[1]
        hidden_NRF = torch.baddbmm(b_NF[:, None], _evened(inputs_NRD), W_NFD.transpose(1, 2))
        main.append(taken(hidden_NRF, n_rows, shape.width))
        if dead_NF is not None:
            aux.append(taken(hidden_NRF.masked_fill_(~dead_NF[:, None], -torch.inf), n_rows, n_dead))
    return _joined(main), _joined(aux) if aux else None


def _joined(parts: list[_Taken]) -> _Taken:
    if len(parts) == 1:
        return _Taken(parts[0].values_NBK.contiguous(), parts[0].cols_NBK.contiguous())
    return _Taken(
        torch.cat([part.values_NBK for part in parts], dim=1), torch.cat([part.cols_NBK for part in parts], dim=1)
    )


def _plain(values_P: Tensor, cols_P: Tensor, norms: Tensor | None) -> Tensor:
    """Return what decoder rows are multiplied by: without the norms that selection weighs by."""
    return values_P if norms is None else values_P / norms[cols_P]


def _k_full(d_in: int) -> int:
    """Return how many dead latents of a token take part in the auxiliary loss at most; see `TopKFamily.dead_loss`."""
    return max(d_in // 2, 1)


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
    values = _evened(values)
    return values.view(values.shape[0], -1, _PIECE, *values.shape[2:])


def _evened(values: Tensor) -> Tensor:
    """Return values [N, n, ...] with zeros at the end where they make no whole number of pieces."""
    if missing := -values.shape[1] % _PIECE:
        values = torch.cat([values, values.new_zeros(values.shape[0], missing, *values.shape[2:])], dim=1)
    return values
