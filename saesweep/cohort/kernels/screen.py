"""Finds the pairs that may matter with a bf16 product and a proven error bound, so that fp32 is spent on those alone.

On CPUs with bf16 matrix units the encoder's product costs a fraction of the fp32 one. A pair is discarded only where even the
bound cannot lift it over the threshold; all others are computed again in fp32. The selection is therefore that of the fp32
path: no pair is lost to rounding, and no value of the result comes from bf16.

The bound: with `x = xh + ex` and `w = wh + ew` (`xh`, `wh` the bf16 roundings), `x.w - xh.wh = ex.w + xh.ew`, which is at most
`|ex| |w| + |xh| |ew|`, with norms taken of the actual rounding errors. The product `xh.wh` sums in fp32 and is rounded to bf16
once at the end.

Shape suffixes: B = tokens of the batch, R = rows of a chunk, F = d_sae, D = d_in, E = d_in and the columns for the bias,
P = candidate pairs, K = k.
"""

from __future__ import annotations

import torch
from torch import Tensor

from saesweep.cohort.kernels.pairs import Pairs
from saesweep.cohort.kernels.scratch import Scratch

SCORE_ROUNDING = 2.0**-7
"""Twice the relative rounding error of bf16: covers that of a score, of a threshold, and of the norms in the bound."""
# What summing D products in fp32 can lose, in units of D |x| |w|: twice its rounding, for any order of summation.
_SUMMING = 2.0**-22
# Columns are padded to whole tiles of the matrix units.
_TILE = 32
# Latents per group whose maximum is compared before its members are.
_GROUP = 16
# fp32 numbers that are rounded at a time: with their copies 3 MiB.
_BLOCK_ELEMENTS = 1 << 18


class Screen:
    """bf16 pre-activations of one step, with their error bounds.

    Args:
        inputs_BD: The encoder's inputs, fp32.
        W_FD: Encoder weights, row per latent, fp32.
        b_F: Encoder bias, added exactly enough: as two bf16 columns.
        scratch: Holds the bf16 copies and one chunk of scores.
    """

    def __init__(self, inputs_BD: Tensor, W_FD: Tensor, b_F: Tensor, scratch: Scratch) -> None:
        self._scratch = scratch
        self.d_sae, d_in = W_FD.shape
        n_columns = -(-(d_in + 2) // _TILE) * _TILE
        like = torch.empty(0, dtype=torch.bfloat16, device=W_FD.device)
        self._x_BE = scratch.take("screen inputs", (inputs_BD.shape[0], n_columns), like)
        self._W_FE = scratch.take("screen weights", (self.d_sae, n_columns), like)
        high_F = b_F.bfloat16()
        low_F = (b_F - high_F).bfloat16()
        for padded, columns in ((self._x_BE, (1.0, 1.0)), (self._W_FE, (high_F, low_F))):
            padded[:, d_in], padded[:, d_in + 1] = columns
            padded[:, d_in + 2 :] = 0
        _, x_norm_B, x_error_B = _round_into(self._x_BE[:, :d_in], inputs_BD)
        w_norm_F, _, w_error_F = _round_into(self._W_FE[:, :d_in], W_FD)
        w_norm, w_error = w_norm_F.max(), w_error_F.max()
        b_error = (b_F - high_F - low_F).abs().max()
        summing = _SUMMING * n_columns * (x_norm_B * w_norm + b_F.abs().max())
        self._bound_B = (x_error_B * w_norm + x_norm_B * w_error + summing + b_error) * (1 + SCORE_ROUNDING)

    @staticmethod
    def serves(d_sae: int, k: int) -> bool:
        """Return whether each row's k largest can be separated by groups."""
        return d_sae % _GROUP == 0 and d_sae // _GROUP >= 2 * k

    def scores(self, rows: slice) -> tuple[Tensor, Tensor]:
        """Return bf16 scores [R, F], in a buffer that the next call overwrites, and each row's bound on their error.

        The bound leaves out the scores' own rounding, at most `SCORE_ROUNDING` of their size.
        """
        x_RE = self._x_BE[rows]
        buffer_RF = self._scratch.take("screen scores", (x_RE.shape[0], self.d_sae), x_RE)
        return torch.mm(x_RE, self._W_FE.t(), out=buffer_RF), self._bound_B[rows]

    def chunk(self, rows: slice) -> ScreenedChunk:
        """Return some rows ready to be asked for their largest pairs; valid until the next call."""
        return ScreenedChunk(*self.scores(rows))


class ScreenedChunk:
    """bf16 scores [R, F] of some rows, and how far each row's are from the fp32 pre-activations at most."""

    def __init__(self, score_RF: Tensor, bound_R: Tensor) -> None:
        n_rows, self._width = score_RF.shape
        self._bound_R = bound_R
        self._n_groups = self._width // _GROUP if self._width % _GROUP == 0 else self._width
        # A group has one latent of every span, so that the maximum runs over contiguous memory.
        self._grouped = score_RF.view(n_rows, self._width // self._n_groups, self._n_groups)
        self._maxima_RG = self._grouped.amax(1)

    def share_above(self, threshold_R: Tensor, every: int) -> float:
        """Return the share of pairs that `above` would give, from every so many rows."""
        lowest_R1 = _below(threshold_R - self._bound_R)[::every, None, None]
        return float((self._grouped[::every] >= lowest_R1).float().mean())

    def above(self, threshold_R: Tensor) -> Pairs:
        """Return every pair whose fp32 pre-activation may be above its row's threshold."""
        lowest_R1 = _below(threshold_R - self._bound_R)[:, None]
        flat_Q = (self._maxima_RG >= lowest_R1).view(-1).nonzero().squeeze(1)
        row_Q = torch.div(flat_Q, self._n_groups, rounding_mode="floor")
        group_Q = flat_Q - row_Q * self._n_groups
        members_QG = self._grouped[row_Q, :, group_Q]
        at_P = (members_QG >= lowest_R1[row_Q]).nonzero()
        cols_P = at_P[:, 1] * self._n_groups + group_Q[at_P[:, 0]]
        return Pairs.of_rows(row_Q[at_P[:, 0]], cols_P, self._maxima_RG.shape[0])

    def kth_lower_bound(self, k: int) -> Tensor:
        """Return a value per row, [R], that at least k of its fp32 pre-activations reach."""
        maxima_RG = self._maxima_RG
        # Coarser groups find a lower value, but faster; it decides only how many candidates there are.
        n_coarse = self._n_groups // 4
        if self._n_groups % 4 == 0 and n_coarse >= 4 * k:
            maxima_RG = maxima_RG.view(-1, 4, n_coarse).amax(1)
        kth_R = maxima_RG.float().topk(k, dim=-1).values[:, -1]
        return kth_R - kth_R.abs() * SCORE_ROUNDING - self._bound_R


def top_of_pairs(pairs: Pairs, values_P: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return (values, latents) of each row's k largest, [R, K], unordered; every row has at least k pairs."""
    starts_R = pairs.offsets_R1[:-1]
    place_P = torch.arange(values_P.shape[0], device=values_P.device) - starts_R[pairs.rows_P]
    width = int(place_P.max()) + 1
    padded = values_P.new_full((pairs.n_rows, width), -torch.inf)
    padded.view(-1)[pairs.rows_P * width + place_P] = values_P
    top = padded.topk(k, dim=-1, sorted=False)
    return top.values, pairs.cols_P[starts_R[:, None] + top.indices]


def _below(values_R: Tensor) -> Tensor:
    """Return bf16 values that are below the given ones by more than a score's rounding."""
    return (values_R - values_R.abs() * 2 * SCORE_ROUNDING).bfloat16()


def _round_into(rounded_RD: Tensor, rows_RD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Round rows to bf16; return the norms of the rows, of the rounded rows, and of the errors, [R] each."""
    norms_R3 = rows_RD.new_empty(3, rows_RD.shape[0])
    # In blocks that stay in the caches: the weights are read from memory once, not once for each of the four passes.
    n_rows = max(_BLOCK_ELEMENTS // rows_RD.shape[1], 1)
    for start in range(0, rows_RD.shape[0], n_rows):
        block = slice(start, start + n_rows)
        rounded_RD[block] = rows_RD[block]
        as_fp32_RD = rounded_RD[block].float()
        for norms_R, vectors_RD in zip(
            norms_R3[:, block], (rows_RD[block], as_fp32_RD, rows_RD[block] - as_fp32_RD), strict=True
        ):
            torch.linalg.vector_norm(vectors_RD, dim=1, out=norms_R)
    norm_R, rounded_norm_R, error_norm_R = norms_R3
    return norm_R, rounded_norm_R, error_norm_R
