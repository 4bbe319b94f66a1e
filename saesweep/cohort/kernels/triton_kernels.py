"""Triton kernels, for GPUs: the products at active pairs, and splitting numbers into halves.

Rows are read where they lie, and sums have a fixed order.

PyTorch's own operators gather the rows into new memory first: measured on an H100, 3 to 14 times the time.

Shape suffixes: R = rows of a table, D = d_in, C = columns, P = active pairs, S = segments (rows of a batch, or latents).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

# Measured on an H100 at d_in 512 and 2304.
_DOT_PAIRS, _DOT_COLUMNS, _DOT_WARPS = 16, 64, 2
_SUM_PAIRS, _SUM_COLUMNS, _SUM_WARPS = 16, 512, 4
# Segments of fewer pairs are summed pair by pair, which is faster for them.
_LONG_SEGMENT = 64
_SPLIT_COLUMNS = 1024


def probe(device: str = "cuda") -> None:
    """Compile and run a small kernel.

    Raises:
        Exception: Whatever Triton or its compiler raises where they do not work.
    """
    rows_P, table_RD = torch.arange(3, device=device), torch.ones(3, 5, device=device)
    dots(rows_P, rows_P, table_RD, table_RD)


def dots(rows_P: Tensor, cols_P: Tensor, left_RD: Tensor, right_RD: Tensor) -> Tensor:
    """Return `left[row] . right[col]` at every pair, [P]."""
    left_RD, right_RD = _with_unit_columns(left_RD), _with_unit_columns(right_RD)
    n_pairs, d_in = rows_P.shape[0], left_RD.shape[1]
    out_P = torch.empty(n_pairs, dtype=left_RD.dtype, device=left_RD.device)
    if n_pairs:
        _dots_kernel[(triton.cdiv(n_pairs, _DOT_PAIRS),)](
            rows_P,
            cols_P,
            left_RD,
            right_RD,
            out_P,
            n_pairs,
            left_RD.stride(0),
            right_RD.stride(0),
            D=d_in,
            PAIRS=_DOT_PAIRS,
            COLUMNS=_DOT_COLUMNS,
            num_warps=_DOT_WARPS,
        )
    return out_P


def weighted_sums(
    index_P: Tensor, weights_P: Tensor, offsets_S1: Tensor, table_RD: Tensor, *, out_SD: Tensor, add: bool
) -> Tensor:
    """Write `sum over a segment's pairs of weight * table[index]` to each row of `out_SD`, and return it.

    Args:
        index_P: Row of the table at each pair, segment by segment.
        weights_P: Weight of each pair, in the same order.
        offsets_S1: Start of each segment's pairs, and the end, [S + 1].
        table_RD: The rows.
        out_SD: The result, contiguous.
        add: Add to what is there.
    """
    table_RD = _with_unit_columns(table_RD)
    n_segments, d_in = out_SD.shape
    if n_segments:
        _sums_kernel[(n_segments, triton.cdiv(d_in, _SUM_COLUMNS))](
            index_P,
            weights_P,
            offsets_S1,
            table_RD,
            out_SD,
            table_RD.stride(0),
            D=d_in,
            ADD=add,
            LONG=_LONG_SEGMENT,
            PAIRS=_SUM_PAIRS,
            COLUMNS=_SUM_COLUMNS,
            num_warps=_SUM_WARPS,
        )
    return out_SD


def split(factor_RC: Tensor, scale: Tensor, is_high: tuple[bool, bool, bool], depth: int, *, out: Tensor) -> None:
    """Write the high or low halves of `scale * factor` to the three parts of `out` along a dimension; see `split.py`."""
    n_rows, n_columns = factor_RC.shape
    part = n_rows * n_columns if depth == 0 else n_columns
    _split_kernel[(n_rows, triton.cdiv(n_columns, _SPLIT_COLUMNS))](
        factor_RC,
        scale,
        out,
        n_columns,
        out.stride(0),
        part,
        2 * part,
        FIRST=is_high[0],
        SECOND=is_high[1],
        THIRD=is_high[2],
        COLUMNS=_SPLIT_COLUMNS,
        num_warps=4,
    )


def _with_unit_columns(table_RD: Tensor) -> Tensor:
    return table_RD if table_RD.stride(1) == 1 else table_RD.contiguous()


@triton.jit  # type: ignore[untyped-decorator]
def _dots_kernel(  # type: ignore[no-untyped-def]
    rows_ptr,
    cols_ptr,
    left_ptr,
    right_ptr,
    out_ptr,
    n_pairs,
    left_stride,
    right_stride,
    D: tl.constexpr,
    PAIRS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    pair = tl.program_id(0) * PAIRS + tl.arange(0, PAIRS)
    is_pair = pair < n_pairs
    left_row = left_ptr + tl.load(rows_ptr + pair, mask=is_pair, other=0)[:, None] * left_stride
    right_row = right_ptr + tl.load(cols_ptr + pair, mask=is_pair, other=0)[:, None] * right_stride
    total = tl.zeros((PAIRS, COLUMNS), out_ptr.dtype.element_ty)
    for start in range(0, D, COLUMNS):
        column = start + tl.arange(0, COLUMNS)[None, :]
        inside = is_pair[:, None] & (column < D)
        total += tl.load(left_row + column, mask=inside, other=0.0) * tl.load(
            right_row + column, mask=inside, other=0.0
        )
    tl.store(out_ptr + pair, tl.sum(total, 1), mask=is_pair)


@triton.jit  # type: ignore[untyped-decorator]
def _sums_kernel(  # type: ignore[no-untyped-def]
    index_ptr,
    weights_ptr,
    offsets_ptr,
    table_ptr,
    out_ptr,
    table_stride,
    D: tl.constexpr,
    ADD: tl.constexpr,
    LONG: tl.constexpr,
    PAIRS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    segment = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < D
    start, end = tl.load(offsets_ptr + segment), tl.load(offsets_ptr + segment + 1)
    # The few latents that fire at most tokens go in blocks of pairs, the others one by one.
    whole_end = tl.where(end - start < LONG, start, start + (end - start) // PAIRS * PAIRS)
    block = tl.zeros((PAIRS, COLUMNS), out_ptr.dtype.element_ty)
    for first in range(start, whole_end, PAIRS):
        pair = first + tl.arange(0, PAIRS)
        row = table_ptr + tl.load(index_ptr + pair)[:, None] * table_stride
        block += tl.load(weights_ptr + pair)[:, None] * tl.load(row + column[None, :], mask=inside[None, :], other=0.0)
    total = tl.sum(block, 0)
    for pair in range(whole_end, end):
        row = table_ptr + tl.load(index_ptr + pair) * table_stride
        total += tl.load(weights_ptr + pair) * tl.load(row + column, mask=inside, other=0.0)
    out = out_ptr + segment * D + column
    if ADD:
        total += tl.load(out, mask=inside, other=0.0)
    tl.store(out, total, mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def _split_kernel(  # type: ignore[no-untyped-def]
    factor_ptr,
    scale_ptr,
    out_ptr,
    n_columns,
    out_stride,
    second_part,
    third_part,
    FIRST: tl.constexpr,
    SECOND: tl.constexpr,
    THIRD: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < n_columns
    scaled = tl.load(factor_ptr + row * n_columns + column, mask=inside, other=0.0) * tl.load(scale_ptr)
    high = scaled.to(tl.float16)
    low = (scaled - high.to(tl.float32)).to(tl.float16)
    out = out_ptr + row * out_stride + column
    tl.store(out, high if FIRST else low, mask=inside)
    tl.store(out + second_part, high if SECOND else low, mask=inside)
    tl.store(out + third_part, high if THIRD else low, mask=inside)
