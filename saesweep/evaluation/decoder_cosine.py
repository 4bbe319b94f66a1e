"""How much the latents of an SAE point the same way: the metric `decoder_cosine`, which speaks of the right L0.

It is `c_dec` of Chanin & Garriga-Alonso (2025), "Sparse but Wrong", arXiv 2508.16560, equation 4: the mean absolute cosine
between the decoder directions of two different latents. An SAE whose L0 is too low mixes features that fire together into
one latent, so that its latents share components.

Shape suffixes: D = width of what is reconstructed, F = d_sae, P = latents of a piece.
"""

from __future__ import annotations

import torch
from torch import Tensor

_PIECE_ELEMENTS = 1 << 24
_CPU_PIECE_ELEMENTS = 1 << 21


def rows_of_cosines(n_columns: int, device: torch.device) -> int:
    """Return how many rows of cosines with so many directions are best held at once."""
    return max(1, (_CPU_PIECE_ELEMENTS if device.type == "cpu" else _PIECE_ELEMENTS) // max(1, n_columns))


def directions(rows_FD: Tensor) -> Tensor:
    """Return the rows at length 1, float32; a row of zeros stays one, whose cosines are 0."""
    return torch.nn.functional.normalize(rows_FD.float(), dim=1)


def decoder_cosine(decoder_FD: Tensor) -> float:
    """Return the mean of `abs(cos)` over all pairs of different rows; NaN of a single one.

    Every pair counts once, and never more than a piece of the F x F cosines is there at a time.
    """
    n_latents = len(decoder_FD)
    if n_latents < 2:
        return float("nan")
    unit_FD = directions(decoder_FD)
    total, n_rows = 0.0, rows_of_cosines(n_latents, unit_FD.device)
    for start in range(0, n_latents, n_rows):
        piece_PD = unit_FD[start : start + n_rows]
        cosine_PF = (piece_PD @ unit_FD[start:].T).abs_()  # with itself and with what comes after it
        own_PP = cosine_PF[:, : len(piece_PD)]
        own = float(own_PP.sum(dtype=torch.float64) - own_PP.diagonal().sum(dtype=torch.float64)) / 2
        total += own + float(cosine_PF[:, len(piece_PD) :].sum(dtype=torch.float64))
    return total / (n_latents * (n_latents - 1) / 2)
