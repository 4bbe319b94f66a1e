"""The largest pre-activations of several SAEs at once: of each token, of the batch, and of each token's dead latents.

Shape suffixes: N = SAEs, B = tokens of the batch, R = tokens of a chunk, F = d_sae, D = d_in, K = pairs of a token, M = pairs of an SAE,
P = pairs of all SAEs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from saesweep.cohort.kernels.choice import KernelChoice
from saesweep.cohort.kernels.gemm import linear
from saesweep.cohort.kernels.pairs import Pairs
from saesweep.cohort.kernels.select import top_rows
from saesweep.saes import Params

PIECE = 64
"""Rows come in whole numbers of so many: threads that a library is left with for a single row multiply it in another order."""


@dataclass(frozen=True)
class StackShape:
    """What SAEs must have in common to be stacked, besides the sizes and types of their weights."""

    width: int
    """Pairs of a token, on average where they are the batch's: at least every member's k."""
    of_batch: bool
    """The largest of the whole batch are kept, not those of each token."""
    inner_widths: tuple[int, ...]
    """Matryoshka widths below `d_sae`; none for other SAEs."""
    is_centred: bool
    """`apply_b_dec_to_input`."""
    is_rescaled: bool
    """`rescale_acts_by_decoder_norm`."""
    reads_dead: bool
    """Whether a latent may be dead and an auxiliary loss see it."""


@dataclass(frozen=True)
class Taken:
    """The pairs that a selection took, as many for every SAE, and which of them count."""

    pairs: Pairs
    """Rows are tokens, and columns latents, of all SAEs one after the other."""
    values_P: Tensor
    """Pre-activations, weighed by decoder norms where selection is."""
    is_kept_P: Tensor
    """False for pairs beyond an SAE's k, and for latents that are alive where dead ones were asked for."""


def width_for(k: float) -> int:
    """Return the pairs of a token in the stack of an SAE with that k: a power of two, so that few stacks hold many k."""
    whole = -int(-k // 1)
    return 1 << max(whole - 1, 0).bit_length()


def k_full_of(d_in: int) -> int:
    """Return how many dead latents of a token take part in the auxiliary loss at most; see `TopKFamily.dead_loss`."""
    return max(d_in // 2, 1)


def evened(values: Tensor) -> Tensor:
    """Return values [N, n, ...] with zeros at the end where they make no whole number of pieces."""
    if missing := -values.shape[1] % PIECE:
        values = torch.cat([values, values.new_zeros(values.shape[0], missing, *values.shape[2:])], dim=1)
    return values


def stacked_select(
    shape: StackShape,
    params: Params,
    inputs_NBD: Tensor,
    norm_NF: Tensor | None,
    k_N: Tensor,
    dead_NF: Tensor | None,
    choice: KernelChoice,
) -> tuple[Taken, Taken | None]:
    """Return the pairs of a step, and those of the auxiliary loss where latents may be dead; see `stacked_step`."""
    W_NFD, b_NF = params["W_enc"], params["b_enc"]
    if norm_NF is not None:
        W_NFD, b_NF = W_NFD * norm_NF[:, :, None], b_NF * norm_NF
    n_tokens, d_sae = inputs_NBD.shape[1], W_NFD.shape[1]
    n_pairs, n_dead = min(shape.width, d_sae) * n_tokens, min(k_full_of(inputs_NBD.shape[2]), d_sae)
    main, aux = [], []
    rows = max(choice.chunk_rows(d_sae) // PIECE, 1) * PIECE
    for start, inputs_NRD in zip(range(0, n_tokens, rows), torch.split(inputs_NBD, rows, dim=1), strict=True):
        hidden_NRF = _pre_acts(evened(inputs_NRD), W_NFD, b_NF, choice)
        n_rows = inputs_NRD.shape[1]
        if shape.of_batch:
            hidden_NRF[:, n_rows:].fill_(-torch.inf)
            main.append(_top_of_all(hidden_NRF.flatten(1), n_pairs, start * d_sae))
        else:
            main.append(_top_of_rows(hidden_NRF, n_rows, n_pairs // n_tokens))
        if dead_NF is not None:
            aux.append(_top_of_rows(hidden_NRF.masked_fill_(~dead_NF[:, None], -torch.inf), n_rows, n_dead))
    found = (
        _of_batch(main, n_pairs, k_N, n_tokens, d_sae, choice) if shape.of_batch else _of_rows(main, k_N, d_sae, choice)
    )
    if shape.inner_widths:
        found = _by_level(found, shape.inner_widths, d_sae)
    return found, _of_rows(aux, None, d_sae, choice) if aux else None


def _pre_acts(inputs_NRD: Tensor, W_NFD: Tensor, b_NF: Tensor, choice: KernelChoice) -> Tensor:
    """Return `inputs W^T + b` of every SAE, [N, R, F]."""
    if choice.stacked != "each":
        return torch.baddbmm(b_NF[:, None], inputs_NRD, W_NFD.transpose(1, 2))
    hidden_NRF = inputs_NRD.new_empty(*inputs_NRD.shape[:2], W_NFD.shape[1])
    for hidden_RF, inputs_RD, W_FD, b_F in zip(hidden_NRF, inputs_NRD, W_NFD, b_NF, strict=True):
        found_RF = linear(choice.gemm, inputs_RD, W_FD, b_F, out=hidden_RF)
        if found_RF.data_ptr() != hidden_RF.data_ptr():  # of a library that returns memory of its own
            hidden_RF.copy_(found_RF)
    return hidden_NRF


def _top_of_rows(hidden_NRF: Tensor, n_rows: int, k: int) -> tuple[Tensor, Tensor]:
    n_saes, _, d_sae = hidden_NRF.shape
    values, latents = top_rows(hidden_NRF.view(-1, d_sae), k, falling=True)
    return values.view(n_saes, -1, k)[:, :n_rows], latents.view(n_saes, -1, k)[:, :n_rows]


def _top_of_all(hidden_NM: Tensor, n_pairs: int, offset: int) -> tuple[Tensor, Tensor]:
    top = hidden_NM.topk(min(n_pairs, hidden_NM.shape[1]), dim=1)
    return top.values, top.indices + offset


def _of_rows(parts: list[tuple[Tensor, Tensor]], k_N: Tensor | None, d_sae: int, choice: KernelChoice) -> Taken:
    """Return each token's pairs; the first k of each SAE are kept, or without k all that are no latent left out."""
    values_NBK, latents_NBK = (torch.cat(tensors, dim=1) for tensors in zip(*parts, strict=True))
    n_saes, _, width = values_NBK.shape
    device = values_NBK.device
    first_N11 = (torch.arange(n_saes, device=device) * d_sae)[:, None, None]
    if k_N is None:
        is_kept_NBK = values_NBK > -torch.inf
    else:
        is_kept_NBK = (torch.arange(width, device=device) < k_N[:, None, None]).expand_as(values_NBK)
    pairs = Pairs.uniform((latents_NBK + first_N11).view(-1, width), choice.pairs)
    return Taken(pairs, values_NBK.reshape(-1), is_kept_NBK.reshape(-1))


def _of_batch(
    parts: list[tuple[Tensor, Tensor]], n_pairs: int, k_N: Tensor, n_tokens: int, d_sae: int, choice: KernelChoice
) -> Taken:
    """Return the batch's pairs by token; the largest k of each SAE are kept."""
    values_NM, flat_NM = (torch.cat(tensors, dim=1) for tensors in zip(*parts, strict=True))
    if len(parts) > 1:
        values_NM, places_NM = values_NM.topk(n_pairs, dim=1)
        flat_NM = flat_NM.gather(1, places_NM)
    n_saes = len(values_NM)
    is_kept_NM = torch.arange(n_pairs, device=k_N.device) < k_N[:, None]
    flat_NM, order_NM = flat_NM.sort(dim=1)
    saes_N1 = torch.arange(n_saes, device=k_N.device)[:, None]
    tokens_NM = torch.div(flat_NM, d_sae, rounding_mode="floor")
    rows_P = (tokens_NM + saes_N1 * n_tokens).view(-1)
    cols_P = (flat_NM - tokens_NM * d_sae + saes_N1 * d_sae).view(-1)
    pairs = Pairs.of_rows(rows_P, cols_P, n_saes * n_tokens, choice.pairs)
    return Taken(pairs, values_NM.gather(1, order_NM).view(-1), is_kept_NM.gather(1, order_NM).view(-1))


def _by_level(taken: Taken, inner_widths: tuple[int, ...], d_sae: int) -> Taken:
    """Return the pairs in the order of their levels, with rows `level * rows + row`."""
    pairs = taken.pairs
    latents_P, level_P = pairs.cols_P % d_sae, torch.zeros_like(pairs.cols_P)
    for width in inner_widths:  # compared with numbers: a tensor of widths would be written to the device in every step
        level_P += latents_P >= width
    order_P = level_P.to(torch.int16).sort(stable=True).indices
    rows_P = (level_P * pairs.n_rows + pairs.rows_P)[order_P]
    by_level = Pairs.of_rows(rows_P, pairs.cols_P[order_P], (len(inner_widths) + 1) * pairs.n_rows, pairs.kernels)
    return Taken(by_level, taken.values_P[order_P], taken.is_kept_P[order_P])
