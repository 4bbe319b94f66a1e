"""Which latents other seeds find again: the metrics `seed_stability` and `seed_stability_both` of a trial's replicates.

A latent is found again where its direction has a partner in the other replicate at a cosine above 0.7, one to one.
Paulo & Belrose (2025), "Sparse autoencoders trained on the same data learn different features", arXiv 2501.16615, call it
shared where encoder and decoder directions, each matched on its own, choose the same partner, both above 0.7.

They match all latents (Hungarian assignment, cubic in d_sae) and look at the threshold afterwards. Here only pairs above
it compete: of all one-to-one matchings of such pairs the one with the largest sum of cosines. That is a sparse problem at
any width, and differs from theirs only where a pair below the threshold would decide between two above it.

Shape suffixes: D = d_in or d_out, A, B = live latents of one replicate and of another, F = d_sae, P = latents of a piece.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from saesweep.evaluation.decoder_cosine import directions, rows_of_cosines
from saesweep.saes import ExportedSAE

THRESHOLD = 0.7
"""A pair of latents at a larger cosine is one latent, found twice."""
_MAX_PARTNERS = 32
"""A latent with more candidates than this competes for the nearest of them."""

Pairs = frozenset[tuple[int, int]]


def seed_stability(saes: Sequence[ExportedSAE], live_F: Sequence[Tensor]) -> dict[str, float]:
    """Return the share of live latents that other replicates have too: by decoder direction, and by encoder and decoder.

    Mean over pairs of replicates, both ways; NaN for a single one, and where no latent of one of a pair is live.

    Args:
        saes: The replicates of a trial.
        live_F: Of each, which latents fire on held-out tokens. The others are left out of both sides: they have learned
            nothing, and point where their own seed left them.
    """
    by_decoder, by_both = [], []
    for first, second in combinations(range(len(saes)), 2):
        pair = [(saes[index], live_F[index]) for index in (first, second)]
        live = [int(own_F.sum()) for _, own_F in pair]
        if not all(live):
            return dict.fromkeys(("seed_stability", "seed_stability_both"), math.nan)
        decoder = matched_pairs(*(_live_rows(sae.tensors["W_dec"], own_F) for sae, own_F in pair))
        encoder = matched_pairs(*(_live_rows(sae.tensors["W_enc"].T, own_F) for sae, own_F in pair))
        share = (1 / live[0] + 1 / live[1]) / 2
        by_decoder.append(len(decoder) * share)
        by_both.append(len(decoder & encoder) * share)
    return {"seed_stability": _mean(by_decoder), "seed_stability_both": _mean(by_both)}


def matched_pairs(first_AD: Tensor, second_BD: Tensor) -> Pairs:
    """Return the one-to-one pairs of rows above the threshold with the largest sum of cosines, as (row, row).

    Args:
        first_AD: Directions of any length.
        second_BD: Others.
    """
    # Lazily, as it takes its time to import: most runs have no replicates.
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    found = list(_near(directions(first_AD), directions(second_BD)))
    rows = np.concatenate([part[0] for part in found])
    columns = np.concatenate([part[1] for part in found])
    cosines = np.concatenate([part[2] for part in found])
    if not len(rows):
        return frozenset()
    own, place = np.unique(rows, return_inverse=True)
    # A row may go without: it has a column of its own at a cosine of 0. Costs are 2 - cosine, as 0 would be no entry.
    alone = np.arange(len(own))
    costs = csr_matrix(
        (
            np.concatenate([2 - cosines, np.full(len(own), 2.0)]),
            (np.concatenate([place, alone]), np.concatenate([columns, len(second_BD) + alone])),
        ),
        shape=(len(own), len(second_BD) + len(own)),
    )
    chosen = zip(*min_weight_full_bipartite_matching(costs), strict=True)
    return frozenset((int(own[row]), int(column)) for row, column in chosen if column < len(second_BD))


def _near(
    first_AD: Tensor, second_BD: Tensor
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]]:
    """Yield row, row and cosine of the pairs above the threshold, a piece of the A x B cosines at a time."""
    n_rows = rows_of_cosines(len(second_BD), first_AD.device)
    for start in range(0, len(first_AD), n_rows):
        cosine_PB = first_AD[start : start + n_rows] @ second_BD.T
        is_near_PB = cosine_PB > THRESHOLD
        if int(is_near_PB.sum(1).max()) > _MAX_PARTNERS:
            nearest = cosine_PB.topk(_MAX_PARTNERS, dim=1).indices
            is_near_PB &= torch.zeros_like(is_near_PB).scatter_(1, nearest, True)
        row, column = is_near_PB.nonzero(as_tuple=True)
        cosine = cosine_PB[row, column].double()
        yield (row + start).cpu().numpy(), column.cpu().numpy(), cosine.cpu().numpy()


def _live_rows(rows_FD: Tensor, live_F: Tensor) -> Tensor:
    return rows_FD[live_F.to(rows_FD.device)]


def _mean(shares: Sequence[float]) -> float:
    return sum(shares) / len(shares) if shares else math.nan
