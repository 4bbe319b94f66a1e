"""Selected pairs of the topk family, from fp32 pre-activations or, faster, through the bf16 screen.

Shape suffixes: R = rows of a chunk, F = d_sae, D = d_in, P = pairs, K = k.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from saesweep.cohort.kernels.frame import Frame
from saesweep.cohort.kernels.pairs import Pairs
from saesweep.cohort.kernels.screen import Screen, top_of_pairs
from saesweep.cohort.kernels.select import Finder, find_above, sample_rows, top_of_batch, top_rows

MAX_SHARE = 0.04
"""Share of pairs from which computing them one by one costs more than a dense fp32 product."""


def select_of_rows(frame: Frame, W_FD: Tensor, b_F: Tensor) -> tuple[Pairs, Tensor]:
    """Return the pairs of each token's k largest pre-activations, and these, some of which may be negative."""
    k = int(frame.knobs.k)
    screen = frame.screen(W_FD, b_F) if Screen.serves(frame.d_sae, k) else None
    values, latents = [], []
    for rows in frame.chunks():
        found = None if screen is None else _screened_rows(frame, screen, rows, W_FD, b_F, k)
        if found is None:
            found = top_rows(frame.pre_acts(frame.inputs_BD[rows], W_FD, b_F), k)
        values.append(found[0])
        latents.append(found[1])
    if len(values) > 1:
        values, latents = [torch.cat(values)], [torch.cat(latents)]
    return Pairs.uniform(latents[0], frame.choice.pairs), values[0].view(-1)


def select_of_batch(frame: Frame, W_FD: Tensor, b_F: Tensor) -> tuple[Pairs, Tensor]:
    """Return the pairs of the batch's `int(k B)` largest positive pre-activations, and these."""
    screen = frame.screen(W_FD, b_F)

    def chunks() -> Iterator[Finder]:
        for rows in frame.chunks():
            if screen is None:
                yield find_above(frame.pre_acts(frame.inputs_BD[rows], W_FD, b_F), rows.start)
            else:
                yield _screened_finder(frame, screen, rows, W_FD, b_F)

    sample_RF = torch.addmm(b_F, frame.inputs_BD[sample_rows(frame.n_tokens)], W_FD.t())
    values_P, flat_P = top_of_batch(chunks, sample_RF, frame.n_tokens, int(frame.knobs.k * frame.n_tokens))
    rows_P = torch.div(flat_P, frame.d_sae, rounding_mode="floor")
    return Pairs.of_rows(rows_P, flat_P - rows_P * frame.d_sae, frame.n_tokens, frame.choice.pairs), values_P


def exact_values(frame: Frame, pairs: Pairs, rows: slice, W_FD: Tensor, b_F: Tensor) -> Tensor:
    """Return the fp32 pre-activations of a chunk's pairs."""
    return pairs.dots(frame.inputs_BD[rows], W_FD).add_(b_F[pairs.cols_P])


def _screened_rows(
    frame: Frame, screen: Screen, rows: slice, W_FD: Tensor, b_F: Tensor, k: int
) -> tuple[Tensor, Tensor] | None:
    chunk = screen.chunk(rows)
    pairs = chunk.above(chunk.kth_lower_bound(k))
    n_pairs, n_rows = pairs.cols_P.shape[0], pairs.n_rows
    # Fewer than k in a row: something is not a number, which the plain path passes on.
    if n_pairs > MAX_SHARE * n_rows * frame.d_sae or int(pairs.offsets_R1.diff().min()) < k:
        return None
    return top_of_pairs(pairs, exact_values(frame, pairs, rows, W_FD, b_F), k)


def _screened_finder(frame: Frame, screen: Screen, rows: slice, W_FD: Tensor, b_F: Tensor) -> Finder:
    chunk = screen.chunk(rows)

    def find(bound: Tensor) -> tuple[Tensor, Tensor]:
        bound_R = bound.expand(rows.stop - rows.start)
        if chunk.share_above(bound_R, every=8) > MAX_SHARE:
            return find_above(frame.pre_acts(frame.inputs_BD[rows], W_FD, b_F), rows.start)(bound)
        pairs = chunk.above(bound_R)
        values_P = exact_values(frame, pairs, rows, W_FD, b_F)
        keep_P = values_P > bound
        flat_P = (pairs.rows_P + rows.start) * frame.d_sae + pairs.cols_P
        return values_P[keep_P], flat_P[keep_P]

    return find
