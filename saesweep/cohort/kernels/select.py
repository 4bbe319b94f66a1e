"""Exact selection of the largest pre-activations: per token (topk) and over the whole batch (batchtopk).

Shape suffixes: B = tokens of the batch, R = rows of a chunk, F = d_sae, K = k, C = candidates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

# Strides tried for the first of the two stages, best first.
_GROUPS = (16, 8, 4)
# Rows from which the first guess at the batch's threshold is made, and how many more pairs than asked for it aims at.
_SAMPLE_ROWS = 64
_MARGIN = 1.5
# Collected candidates per selected pair at which the guess is raised: bounds memory when the guess was far too low.
_MAX_EXCESS = 4

Finder = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Returns (values, flat positions `token * F + latent`) of a chunk's pre-activations above a scalar, by token."""


def top_rows(hidden_RF: Tensor, k: int, *, falling: bool = False) -> tuple[Tensor, Tensor]:
    """Return (values, latents) of each row's k largest, [R, K], in falling order or in any.

    In two stages where that is faster: the k largest lie in the k groups with the largest maxima.
    """
    n_rows, width = hidden_RF.shape
    n_groups = next((g for g in _GROUPS if width % g == 0 and width // g >= 2 * k), None)
    if n_groups is None:
        top = hidden_RF.topk(k, dim=-1, sorted=falling)
        return top.values, top.indices
    span = width // n_groups
    # A group holds one latent of every span, so that the maximum runs over contiguous memory.
    grouped = hidden_RF.view(n_rows, n_groups, span)
    groups_RK = grouped.amax(1).topk(k, dim=-1, sorted=False).indices
    candidates = grouped.gather(2, groups_RK[:, None, :].expand(n_rows, n_groups, k)).view(n_rows, n_groups * k)
    top = candidates.topk(k, dim=-1, sorted=falling)
    place = torch.div(top.indices, k, rounding_mode="floor")
    return top.values, place * span + groups_RK.gather(1, top.indices - place * k)


def top_of_batch(
    chunks: Callable[[], Iterator[Finder]], sample_RF: Tensor, n_tokens: int, n_keep: int
) -> tuple[Tensor, Tensor]:
    """Return (values, flat positions), by token, of the batch's largest positive pre-activations.

    A threshold guessed from a sample of the rows picks candidates; the selection among them is exact, so the guess decides
    the cost alone. Exactly `n_keep` are kept, or all positive ones where there are fewer. Equal values at the boundary (of
    measure zero in training) are kept in the order in which they are found; `torch.topk` leaves open which it takes.

    Args:
        chunks: Starts a pass over the batch, from the first token to the last; called again where the guess was too high.
        sample_RF: Pre-activations of some rows, [R, F].
        n_tokens: Rows of the batch.
        n_keep: How many to keep.
    """
    margin = _MARGIN
    if n_keep < 1:
        return sample_RF.new_empty(0), torch.empty(0, dtype=torch.int64, device=sample_RF.device)
    while True:
        rank = math.ceil(margin * n_keep * sample_RF.shape[0] / n_tokens) + 1
        guess = sample_RF.new_zeros(())
        if rank <= sample_RF.numel():
            guess = _kth_largest(sample_RF.flatten(), rank).clamp(min=0)
        values_C, flat_C = _candidates(chunks(), guess, n_keep)
        if values_C.shape[0] >= n_keep or not bool(guess > 0):
            return _keep_largest(values_C, flat_C, n_keep)
        margin *= 2


def sample_rows(n_tokens: int) -> slice:
    """Return evenly spaced rows for `top_of_batch`."""
    return slice(None, None, max(n_tokens // _SAMPLE_ROWS, 1))


def find_above(hidden_RF: Tensor, start: int) -> Finder:
    """Return the finder of a dense chunk whose first row is the batch's row `start`."""

    def find(bound: Tensor) -> tuple[Tensor, Tensor]:
        flat_C = (hidden_RF > bound).view(-1).nonzero().squeeze(1)
        return hidden_RF.view(-1)[flat_C], flat_C + start * hidden_RF.shape[1]

    return find


def _candidates(chunks: Iterator[Finder], guess: Tensor, n_keep: int) -> tuple[Tensor, Tensor]:
    values: list[Tensor] = []
    flats: list[Tensor] = []
    n_found = 0
    for find in chunks:
        values_C, flat_C = find(guess)
        values.append(values_C)
        flats.append(flat_C)
        n_found += flat_C.shape[0]
        if n_found > _MAX_EXCESS * n_keep:
            values_C, flat_C = _keep_largest(torch.cat(values), torch.cat(flats), n_keep)
            values, flats, n_found = [values_C], [flat_C], n_keep
            # Whatever is smaller than n_keep others cannot be among the n_keep largest; equal ones may be.
            guess = torch.nextafter(values_C.min(), torch.zeros_like(guess))
    return torch.cat(values), torch.cat(flats)


def _keep_largest(values_C: Tensor, flat_C: Tensor, n_keep: int) -> tuple[Tensor, Tensor]:
    if values_C.shape[0] <= n_keep:
        return values_C, flat_C
    if values_C.device.type == "cuda":
        return _keep_by_sorting(values_C, flat_C, n_keep)
    bound = _kth_largest(values_C, n_keep)
    keep_C = values_C > bound
    ties = (values_C == bound).nonzero().squeeze(1)
    keep_C[ties[: n_keep - int(keep_C.sum())]] = True
    return values_C[keep_C], flat_C[keep_C]


def _keep_by_sorting(values_C: Tensor, flat_C: Tensor, n_keep: int) -> tuple[Tensor, Tensor]:
    """Return the same ones without asking the device for a number; of equal values a stable sort leaves the first in front."""
    order_K = values_C.sort(descending=True, stable=True).indices[:n_keep].sort().values
    return values_C[order_K], flat_C[order_K]


def _kth_largest(values_C: Tensor, rank: int) -> Tensor:
    if values_C.device.type == "cuda":
        # One block of the GPU does all of kthvalue: 10 to 25 times the time of sorting.
        return values_C.sort(descending=True).values[rank - 1]
    return values_C.kthvalue(values_C.shape[0] - rank + 1).values
