"""Finds the pairs that may matter with a half-precision product and a proven error bound: fp32 is spent on those alone.

On CPUs with bf16 matrix units, and on GPUs with fp16 ones, the encoder's product costs a fraction of the fp32 one. A pair is
discarded only where even the bound cannot lift it over the threshold; all others are computed again in fp32. The selection is
therefore that of the fp32 path: no pair is lost to rounding, and no value of the result comes from half precision.

The bound: with `x = xh + ex` and `w = wh + ew` (`xh`, `wh` the rounded vectors), `x.w - xh.wh = ex.w + xh.ew`, which is at most
`|ex| |w| + |xh| |ew|`, with norms taken of the actual rounding errors. The product `xh.wh` sums in fp32. On a CPU it is rounded
to bf16 once at the end; on a GPU it stays fp32. The bias is one more column of `w`, to which `x` has 1. fp16 has little range:
weights are scaled by a power of two, and what overflows has an infinite bound, so that it is computed in fp32.

Shape suffixes: B = tokens of the batch, R = rows of a chunk, F = d_sae, D = d_in, E = d_in and the columns for the bias,
P = candidate pairs, K = k, M = candidates per row.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from saesweep.cohort.kernels.pairs import PairKernels, Pairs, triton_or_none
from saesweep.cohort.kernels.scratch import Scratch
from saesweep.cohort.kernels.select import top_rows

# What summing D products in fp32 can lose, in units of D |x| |w|: twice its rounding, for any order of summation.
_SUMMING = 2.0**-22
# Columns are padded to whole tiles of the matrix units.
_TILE = 32
# Latents per group whose maximum is compared before its members are.
_GROUP = 16


@dataclass(frozen=True)
class HalfPrecision:
    """How a kind of device computes scores."""

    dtype: torch.dtype
    """Type of the factors."""
    score_dtype: torch.dtype
    """Type of their product."""
    score_rounding: float
    """Twice the relative rounding error of the scores' type: covers that of a score, of a threshold, and of the bound."""
    weight_scale: float
    """What weights and biases are multiplied with, a power of two."""
    block_elements: int
    """fp32 numbers that are rounded at a time."""


# A block is 3 MiB with its copies, which stay in the caches: weights are read from memory once, not for each of four passes.
CPU = HalfPrecision(torch.bfloat16, torch.bfloat16, 2.0**-7, 1.0, 1 << 18)
# Weights from 2e-7 to 256 keep fp16's full precision.
GPU = HalfPrecision(torch.float16, torch.float32, 2.0**-22, 2.0**8, 1 << 25)
# Twice what rounding can take from a norm.
_NORM_ROUNDING = 2.0**-16


class Screen:
    """Half-precision pre-activations of one step, with their error bounds.

    Args:
        inputs_BD: The encoder's inputs, fp32.
        W_FD: Encoder weights, row per latent, fp32.
        b_F: Encoder bias, added exactly enough: as two columns.
        scratch: Holds the rounded copies and one chunk of scores.
        precision: How scores are computed; by default as suits the device.
        kernels: Library of the products at the pairs that are found.
    """

    def __init__(
        self,
        inputs_BD: Tensor,
        W_FD: Tensor,
        b_F: Tensor,
        scratch: Scratch,
        precision: HalfPrecision | None = None,
        kernels: PairKernels = "torch",
    ) -> None:
        self.precision = precision or (CPU if W_FD.device.type == "cpu" else GPU)
        self._scratch, self._kernels = scratch, kernels
        self.d_sae, d_in = W_FD.shape
        n_columns = -(-(d_in + 2) // _TILE) * _TILE
        like = torch.empty(0, dtype=self.precision.dtype, device=W_FD.device)
        self._x_BE = scratch.take("screen inputs", (inputs_BD.shape[0], n_columns), like)
        self._W_FE = scratch.take("screen weights", (self.d_sae, n_columns), like)
        _, x_norm_B, x_error_B = self._rounded(self._x_BE, inputs_BD, None, 1.0)
        w_norm, w_rounded_norm, w_error = self._rounded(self._W_FE, W_FD, b_F, self.precision.weight_scale).amax(1)
        slack = 1 + self.precision.score_rounding + _NORM_ROUNDING
        per_x_norm = (w_error + _SUMMING * n_columns * w_rounded_norm) * slack
        self._bound_B = torch.addcmul(x_norm_B * per_x_norm, x_error_B, w_norm * slack)

    def _rounded(self, out_RE: Tensor, rows_RD: Tensor, bias_R: Tensor | None, scale: float) -> Tensor:
        fused = triton_or_none() if self._kernels == "triton" else None
        if fused is not None:
            found: Tensor = fused.round_rows(rows_RD, bias_R, scale, out_RE=out_RE)
            return found
        return round_rows(rows_RD, bias_R, scale, out_RE=out_RE, block_elements=self.precision.block_elements)

    @staticmethod
    def serves(d_sae: int, k: int) -> bool:
        """Return whether each row's k largest can be told apart by groups."""
        return d_sae % _GROUP == 0 and d_sae // _GROUP >= 2 * k

    def scores(self, rows: slice) -> tuple[Tensor, Tensor]:
        """Return scores [R, F], in a buffer that the next call overwrites, and each row's bound on their error.

        Both are `precision.weight_scale` times as large as the pre-activations. The bound leaves out the scores' own rounding, at most
        `precision.score_rounding` of their size.
        """
        x_RE, dtype = self._x_BE[rows], self.precision.score_dtype
        like = torch.empty(0, dtype=dtype, device=x_RE.device)
        buffer_RF = self._scratch.take("screen scores", (x_RE.shape[0], self.d_sae), like)
        if dtype == x_RE.dtype:
            torch.mm(x_RE, self._W_FE.t(), out=buffer_RF)
        elif x_RE.device.type == "cpu":
            # No CPU library has this product: the plain form of what a GPU computes, for tests.
            torch.mm(x_RE.to(dtype), self._W_FE.t().to(dtype), out=buffer_RF)
        else:
            torch.mm(x_RE, self._W_FE.t(), out_dtype=dtype, out=buffer_RF)
        return buffer_RF, self._bound_B[rows]

    def chunk(self, rows: slice) -> ScreenedChunk:
        """Return some rows ready to be asked for their largest pairs; valid until the next call."""
        return ScreenedChunk(*self.scores(rows), self.precision, self._kernels)


class ScreenedChunk:
    """Scores [R, F] of some rows, and how far each row's are from the fp32 pre-activations at most.

    Thresholds go in and values come out in the unit of the pre-activations.
    """

    def __init__(self, score_RF: Tensor, bound_R: Tensor, precision: HalfPrecision, kernels: PairKernels) -> None:
        n_rows, self._width = score_RF.shape
        self._score_RF, self._bound_R, self._unit = score_RF, bound_R, precision.weight_scale
        self._precision, self._kernels = precision, kernels
        self._n_groups = self._width // _GROUP if self._width % _GROUP == 0 else self._width
        # A group has one latent of every span, so that the maximum runs over contiguous memory.
        self._grouped = score_RF.view(n_rows, self._width // self._n_groups, self._n_groups)
        self._found_maxima_RG: Tensor | None = None

    @property
    def _maxima_RG(self) -> Tensor:
        if self._found_maxima_RG is None:
            self._found_maxima_RG = self._grouped.amax(1)
        return self._found_maxima_RG

    def share_above(self, threshold_R: Tensor, every: int) -> float:
        """Return the share of pairs that `above` would give, from every so many rows.

        1 where `above` may not be asked, because something has no bound: it is not finite, or overflows in half precision.
        """
        lowest_R1 = self._lowest(threshold_R)[::every, None, None]
        share = (self._grouped[::every] >= lowest_R1).float().mean()
        return float(torch.where(self._bound_R.isfinite().all(), share, 1.0))

    def above(self, threshold_R: Tensor) -> Pairs:
        """Return every pair whose fp32 pre-activation may be above its row's threshold; rows without a bound give none."""
        lowest_R1 = self._lowest(threshold_R)[:, None]
        flat_Q = (self._maxima_RG >= lowest_R1).view(-1).nonzero().squeeze(1)
        row_Q = torch.div(flat_Q, self._n_groups, rounding_mode="floor")
        group_Q = flat_Q - row_Q * self._n_groups
        members_QG = self._grouped[row_Q, :, group_Q]
        at_P = (members_QG >= lowest_R1[row_Q]).nonzero()
        cols_P = at_P[:, 1] * self._n_groups + group_Q[at_P[:, 0]]
        return Pairs.of_rows(row_Q[at_P[:, 0]], cols_P, self._score_RF.shape[0], self._kernels)

    def kth_at_least(self, k: int) -> Tensor:
        """Return a value per row, [R], that at least k of its fp32 pre-activations reach."""
        maxima_RG = self._maxima_RG
        # Coarser groups find a lower value, but faster; it decides only how many candidates there are.
        n_coarse = self._n_groups // 4
        if self._n_groups % 4 == 0 and n_coarse >= 4 * k:
            maxima_RG = maxima_RG.view(-1, 4, n_coarse).amax(1)
        kth_R = maxima_RG.float().topk(k, dim=-1).values[:, -1]
        return (kth_R - kth_R.abs() * self._precision.score_rounding - self._bound_R) / self._unit

    def largest(self, m: int) -> tuple[Tensor, Tensor]:
        """Return the latents with each row's m largest scores, [R, M], and what no other pre-activation exceeds, [R]."""
        scores_RM, latents_RM = top_rows(self._score_RF, m)
        least_R = scores_RM.amin(1).float()
        return latents_RM, (least_R + least_R.abs() * self._precision.score_rounding + self._bound_R) / self._unit

    def _lowest(self, threshold_R: Tensor) -> Tensor:
        """Return scores that are below those of the thresholds by more than what can be off, and the scores' rounding."""
        values_R = threshold_R * self._unit - self._bound_R
        return (values_R - values_R.abs() * 2 * self._precision.score_rounding).to(self._score_RF.dtype)


def top_of_pairs(pairs: Pairs, values_P: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return (values, latents) of each row's k largest, [R, K], unordered; every row has at least k pairs."""
    starts_R = pairs.offsets_R1[:-1]
    place_P = torch.arange(values_P.shape[0], device=values_P.device) - starts_R[pairs.rows_P]
    width = int(place_P.max()) + 1
    padded = values_P.new_full((pairs.n_rows, width), -torch.inf)
    padded.view(-1)[pairs.rows_P * width + place_P] = values_P
    top = padded.topk(k, dim=-1, sorted=False)
    return top.values, pairs.cols_P[starts_R[:, None] + top.indices]


def round_rows(
    rows_RD: Tensor, bias_R: Tensor | None, scale: float, *, out_RE: Tensor, block_elements: int = 1 << 25
) -> Tensor:
    """Round scaled rows, each followed by its bias, to half precision.

    Args:
        rows_RD: fp32 rows.
        bias_R: Their biases, kept to twice the precision in two columns. None: the rows are what biases are added to, and
            both columns hold 1, unscaled.
        scale: What rows and biases are multiplied with.
        out_RE: Takes the rounded rows, the two columns, and zeros up to its width.
        block_elements: Numbers rounded at a time.

    Returns:
        Norms [3, R] of the scaled rows, of the rounded rows, and of their differences, biases (or one 1) included.
    """
    d_in = rows_RD.shape[1]
    if bias_R is None:
        one_R = rows_RD.new_ones(rows_RD.shape[0])
        high_R, low_R, bias_3R = one_R, one_R, torch.stack([one_R, one_R, torch.zeros_like(one_R)])
    else:
        exact_R = bias_R * scale
        high_R = exact_R.to(out_RE.dtype)
        low_R = (exact_R - high_R).to(out_RE.dtype)
        bias_3R = torch.stack([exact_R, high_R.float() + low_R, exact_R - high_R - low_R])
    out_RE[:, d_in], out_RE[:, d_in + 1], out_RE[:, d_in + 2 :] = high_R, low_R, 0
    norms_3R = rows_RD.new_empty(3, rows_RD.shape[0])
    n_rows = max(block_elements // d_in, 1)
    for start in range(0, rows_RD.shape[0], n_rows):
        block = slice(start, start + n_rows)
        exact_RD = rows_RD[block] if scale == 1.0 else rows_RD[block] * scale
        out_RE[block, :d_in] = exact_RD
        as_fp32_RD = out_RE[block, :d_in].float()
        for norms_R, vectors_RD in zip(norms_3R[:, block], (exact_RD, as_fp32_RD, exact_RD - as_fp32_RD), strict=True):
            torch.linalg.vector_norm(vectors_RD, dim=1, out=norms_R)
    return norms_3R.hypot_(bias_3R)
