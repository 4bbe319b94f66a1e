"""What the penalised architectures (standard, jumprelu, gated) share: each chunk is dense or gives its active pairs.

Shape suffixes: R = rows (tokens) of a chunk or of several, F = d_sae, D = d_in, P = active pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from saesweep.cohort.kernels.frame import Frame
from saesweep.cohort.kernels.pairs import Pairs
from saesweep.cohort.kernels.screen import Screen
from saesweep.cohort.kernels.selected import MAX_SHARE, exact_values

# Active pairs gathered before they are worked off: bounds memory while the activations are not sparse yet. Each time
# the whole gradients are added to, which a GPU would rather do once.
PENDING_PAIRS, _PENDING_PAIRS_GPU = 1 << 19, 1 << 22
# Every so many rows of a chunk are counted to tell its density.
COUNT_EVERY = 8


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Whole rows of the batch with their active pairs."""

    rows: slice
    pairs: Pairs
    """Rows counted from `rows.start`."""
    hidden_P: Tensor
    """Pre-activations at the pairs."""


def each_chunk(
    frame: Frame,
    b_F: Tensor,
    bound_F: Tensor | None,
    *,
    dense: Callable[[slice, Tensor], None],
    sparse: Callable[[Piece], None],
    seen: Callable[[slice, Tensor], None] | None = None,
) -> None:
    """Encode the batch and give every row either to `dense` or, with its pairs above `bound_F`, to `sparse`.

    Args:
        frame: The step.
        b_F: Bias of the pre-activations.
        bound_F: A pair matters where its pre-activation is above this; None: above 0.
        dense: Takes (rows, pre-activations [R, F], which it may overwrite) of chunks with many active pairs.
        sparse: Takes the active pairs of one or several chunks.
        seen: Takes each chunk before either, read-only.
    """
    waiting: list[tuple[slice, Tensor, Tensor]] = []
    n_waiting = 0
    max_waiting = PENDING_PAIRS if frame.x_BD.device.type == "cpu" else _PENDING_PAIRS_GPU

    def process_waiting() -> None:
        nonlocal n_waiting
        if waiting:
            sparse(_join(waiting, frame))
            waiting.clear()
            n_waiting = 0

    limit = frame.choice.dense_above
    # The loss on dead latents reads whole columns, which the screen does not compute.
    screen = frame.screen(frame.W_enc_FD, b_F if bound_F is None else b_F - bound_F) if seen is None else None
    screening = screen is not None
    for rows in frame.chunks():
        found = _screened(frame, screen, rows, b_F, bound_F) if screen is not None and screening else None
        if found is None:
            hidden_RF = frame.pre_acts(frame.inputs_BD[rows], frame.W_enc_FD, b_F)
            if seen is not None:
                seen(rows, hidden_RF)
            sample_RF = _above(hidden_RF[::COUNT_EVERY], bound_F)
            is_dense = int(sample_RF.count_nonzero()) > limit * sample_RF.numel()
            # Neighbouring chunks are alike: where this one is dense, the next is not screened in vain.
            screening = not is_dense
            if is_dense:
                # Pieces are runs of neighbouring rows: what waits goes first.
                process_waiting()
                dense(rows, hidden_RF)
                continue
            flat_P = _above(hidden_RF, bound_F).view(-1).nonzero().squeeze(1)
            found = flat_P, hidden_RF.view(-1)[flat_P]
        waiting.append((rows, *found))
        n_waiting += found[0].shape[0]
        if n_waiting >= max_waiting:
            process_waiting()
    process_waiting()


def _screened(
    frame: Frame, screen: Screen, rows: slice, b_F: Tensor, bound_F: Tensor | None
) -> tuple[Tensor, Tensor] | None:
    """Return (flat positions, pre-activations) of the chunk's pairs that matter; None: it is too dense to be screened."""
    chunk = screen.chunk(rows)
    zeros_R = b_F.new_zeros(rows.stop - rows.start)
    if chunk.share_above(zeros_R, COUNT_EVERY) > min(frame.choice.dense_above, MAX_SHARE):
        return None
    pairs = chunk.above(zeros_R)
    hidden_P = exact_values(frame, pairs, rows, frame.W_enc_FD, b_F)
    keep_P = hidden_P > (0 if bound_F is None else bound_F[pairs.cols_P])
    return (pairs.rows_P * frame.d_sae + pairs.cols_P)[keep_P], hidden_P[keep_P]


def _above(hidden_RF: Tensor, bound_F: Tensor | None) -> Tensor:
    return hidden_RF > (0 if bound_F is None else bound_F)


def _join(parts: list[tuple[slice, Tensor, Tensor]], frame: Frame) -> Piece:
    d_sae = frame.d_sae
    start, stop = parts[0][0].start, parts[-1][0].stop
    flat_P = torch.cat([flat + (rows.start - start) * d_sae for rows, flat, _ in parts])
    rows_P = torch.div(flat_P, d_sae, rounding_mode="floor")
    pairs = Pairs.of_rows(rows_P, flat_P - rows_P * d_sae, stop - start, frame.choice.pairs)
    return Piece(rows=slice(start, stop), pairs=pairs, hidden_P=torch.cat([hidden for _, _, hidden in parts]))
