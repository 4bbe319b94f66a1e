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

# Active pairs gathered before they are worked off: bounds memory while the activations are not sparse yet.
_PENDING_PAIRS = 1 << 19
# Every so many rows of a chunk are counted to tell its density.
_COUNT_EVERY = 8


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

    def work_off() -> None:
        nonlocal n_waiting
        if waiting:
            sparse(_join(waiting, frame.d_sae))
            waiting.clear()
            n_waiting = 0

    limit = frame.choice.dense_above
    for rows, hidden_RF in frame.encode(frame.W_enc_FD, b_F):
        if seen is not None:
            seen(rows, hidden_RF)
        sample_RF = _above(hidden_RF[::_COUNT_EVERY], bound_F)
        if int(sample_RF.count_nonzero()) > limit * sample_RF.numel():
            # Pieces are runs of neighbouring rows: what waits goes first.
            work_off()
            dense(rows, hidden_RF)
            continue
        flat_P = _above(hidden_RF, bound_F).view(-1).nonzero().squeeze(1)
        waiting.append((rows, flat_P, hidden_RF.view(-1)[flat_P]))
        n_waiting += flat_P.shape[0]
        if n_waiting >= _PENDING_PAIRS:
            work_off()
    work_off()


def _above(hidden_RF: Tensor, bound_F: Tensor | None) -> Tensor:
    return hidden_RF > (0 if bound_F is None else bound_F)


def _join(parts: list[tuple[slice, Tensor, Tensor]], d_sae: int) -> Piece:
    start, stop = parts[0][0].start, parts[-1][0].stop
    flat_P = torch.cat([flat + (rows.start - start) * d_sae for rows, flat, _ in parts])
    rows_P = torch.div(flat_P, d_sae, rounding_mode="floor")
    pairs = Pairs.of_rows(rows_P, flat_P - rows_P * d_sae, stop - start)
    return Piece(rows=slice(start, stop), pairs=pairs, hidden_P=torch.cat([hidden for _, _, hidden in parts]))
