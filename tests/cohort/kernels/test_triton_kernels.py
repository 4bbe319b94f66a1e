"""Every Triton kernel at odd shapes, against float64: compiled on a GPU, and in Triton's interpreter on a CPU (`make triton`).

Shape suffixes: R = rows of a table, D = its columns, S = segments, P = pairs.
"""

from __future__ import annotations

import importlib.util
import os
from types import ModuleType

import pytest
import torch
from kernel_cases import CASES, Case
from test_sparse_gradients import assert_equal, both

from saesweep.cohort.kernels import KernelChoice
from saesweep.cohort.kernels.gemm import _LEFT, _RIGHT, split_product

_INTERPRETED = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None or os.environ.get("TRITON_INTERPRET") != "1",
    reason="needs the package triton and TRITON_INTERPRET=1: `make triton` has both",
)
DEVICES = [pytest.param("cpu", marks=_INTERPRETED), pytest.param("cuda", marks=pytest.mark.gpu)]
SHAPES = [(1, 3, 5), (67, 41, 33), (515, 130, 24)]
"""Columns, rows and segments: none a multiple of a kernel's blocks of 16 pairs, and of 64, 512 or 1024 columns."""
DTYPES = [torch.float32, torch.float64]
_EPS = {torch.float32: 2e-6, torch.float64: 1e-14}


@pytest.fixture
def kernels() -> ModuleType:
    from saesweep.cohort.kernels import triton_kernels

    return triton_kernels


def segments(n_segments: int, n_rows: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return (segment, row, offsets) of pairs: the first segment long enough for blocks of pairs and a rest, the last empty."""
    generator = torch.Generator().manual_seed(0)
    sizes = [64 + 43, 16, 1, 0] + [segment % 7 for segment in range(4, n_segments)]
    sizes = [*sizes[: n_segments - 1], 0]
    segment_P = torch.repeat_interleave(torch.arange(n_segments), torch.tensor(sizes))
    row_P = torch.randint(n_rows, segment_P.shape, generator=generator)
    offsets_S1 = torch.tensor([0, *sizes]).cumsum(0)
    return segment_P, row_P, offsets_S1


def table(n_rows: int, n_columns: int, dtype: torch.dtype, seed: int, layout: str) -> torch.Tensor:
    """Return a table as a whole tensor, as columns of a wider one, or transposed."""
    generator = torch.Generator().manual_seed(seed)
    found = torch.randn(n_rows, n_columns, generator=generator, dtype=torch.float64).to(dtype)
    if layout == "part":
        wider = torch.full((n_rows, n_columns + 3), float("nan"), dtype=dtype)
        wider[:, 1 : n_columns + 1] = found
        return wider[:, 1 : n_columns + 1]
    return found.t().contiguous().t() if layout == "transposed" else found


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("layout", ["whole", "part", "transposed"])
def test_dots(kernels: ModuleType, shape: tuple[int, int, int], dtype: torch.dtype, layout: str, device: str) -> None:
    d, n_rows, n_segments = shape
    segment_P, row_P, _ = segments(n_segments, n_rows)
    left, right = table(n_segments, d, dtype, 1, layout), table(n_rows, d, dtype, 2, layout)
    got = kernels.dots(segment_P.to(device), row_P.to(device), _kept(left, device), _kept(right, device))
    exact_P = (left.double()[segment_P] * right.double()[row_P]).sum(1)
    assert got.dtype == dtype
    assert (got.cpu().double() - exact_P).abs().max() <= _EPS[dtype] * d


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("layout", ["whole", "part", "transposed"])
@pytest.mark.parametrize("add", [False, True])
def test_weighted_sums(
    kernels: ModuleType, shape: tuple[int, int, int], dtype: torch.dtype, layout: str, add: bool, device: str
) -> None:
    d, n_rows, n_segments = shape
    segment_P, row_P, offsets_S1 = segments(n_segments, n_rows)
    weights_P, rows_RD = table(len(row_P), 1, dtype, 3, "whole")[:, 0], table(n_rows, d, dtype, 4, layout)
    out_SD = torch.full((n_segments, d), 7.0 if add else float("nan"), dtype=dtype, device=device)
    arguments = (row_P.to(device), weights_P.to(device), offsets_S1.to(device), _kept(rows_RD, device))
    got = kernels.weighted_sums(*arguments, out_SD=out_SD, add=add)
    exact_SD = torch.full((n_segments, d), 7.0 if add else 0.0, dtype=torch.float64)
    exact_SD.index_add_(0, segment_P, weights_P.double()[:, None] * rows_RD.double()[row_P])
    assert got is out_SD
    assert (out_SD.cpu().double() - exact_SD).abs().max() <= _EPS[dtype] * 107


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_no_pairs_and_no_segments(kernels: ModuleType, dtype: torch.dtype, device: str) -> None:
    none = torch.zeros(0, dtype=torch.int64, device=device)
    rows_RD = torch.ones(4, 5, dtype=dtype, device=device)
    assert kernels.dots(none, none, rows_RD, rows_RD).shape == (0,)
    out_SD = torch.ones(3, 5, dtype=dtype, device=device)
    offsets_S1 = torch.zeros(4, dtype=torch.int64, device=device)
    kernels.weighted_sums(none, rows_RD[:0, 0], offsets_S1, rows_RD, out_SD=out_SD, add=False)
    assert not out_SD.any()
    kernels.weighted_sums(none, rows_RD[:0, 0], offsets_S1[:1], rows_RD, out_SD=out_SD[:0], add=False)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (37, 1027), (6, 300)], ids=str)
@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize("is_high", [_LEFT, _RIGHT], ids=["left", "right"])
def test_split(
    kernels: ModuleType,
    shape: tuple[int, int],
    dtype: torch.dtype,
    depth: int,
    is_high: tuple[bool, bool, bool],
    device: str,
) -> None:
    factor = table(*shape, dtype, 5, "whole")
    scale = torch.tensor(2.0**9, dtype=dtype)
    n_rows, n_columns = shape
    size = (3 * n_rows, n_columns) if depth == 0 else (n_rows, 3 * n_columns)
    out = torch.full(size, float("nan"), dtype=torch.float16, device=device)
    kernels.split(factor.to(device), scale.to(device), is_high, depth, out=out)
    scaled = factor * scale
    high = scaled.half()
    low = (scaled - high.to(dtype)).half()
    found_high, second, third = out.cpu().chunk(3, dim=depth)
    again_high, found_low = (second, third) if is_high == _LEFT else (third, second)
    assert torch.equal(again_high, found_high)
    if dtype == torch.float32:
        assert torch.equal(found_high, high)
        assert torch.equal(found_low, low)
    # float64 is rounded to fp16 at once or by way of float32, as the library pleases. Of float32's 24 bits the halves keep 22.
    assert (found_high.double() - scaled.double()).abs().max() <= 2.0**-11 * scaled.abs().max()
    assert (found_high.double() + found_low.double() - scaled.double()).abs().max() <= 2.0**-22 * scaled.abs().max()


@_INTERPRETED
def test_probe(kernels: ModuleType) -> None:
    kernels.probe("cpu")


_OF_EACH_FAMILY = (
    "topk dead",
    "batchtopk",
    "matryoshka aux by level dead",
    "standard p=1.0",
    "gated",
    "jumprelu tanh ste dead",
    "topk dead_skip transcoder",
    "topk uncentred dead crosscoder",
)


@_INTERPRETED
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", [c for c in CASES if c.name in _OF_EACH_FAMILY], ids=lambda c: c.name)
def test_whole_steps_in_the_interpreter(case: Case, dtype: torch.dtype) -> None:
    """The tables and the orders of pairs that a step hands to the kernels, and how it adds piece to piece."""
    choice = KernelChoice(pairs="triton", dense_above=1.0, chunk_elements=96 * 32)
    assert_equal(*both(case, choice, dtype), tol=1e-12 if dtype == torch.float64 else 1e-5)


def test_every_family_is_among_the_whole_steps() -> None:
    assert {c.name for c in CASES if c.name in _OF_EACH_FAMILY} == set(_OF_EACH_FAMILY)


@pytest.mark.gpu
def test_split_products_of_odd_shapes_on_a_gpu() -> None:
    left, right = table(37, 131, torch.float32, 6, "whole"), table(131, 1027, torch.float32, 7, "whole")
    error = split_product(left.cuda(), right.cuda()).cpu().double() - left.double() @ right.double()
    assert error.abs().max() <= 5e-7 * left.norm(dim=1).max() * right.norm(dim=0).max()


def _kept(rows: torch.Tensor, device: str) -> torch.Tensor:
    """Return the table on the device in its layout, which a copy to another device would lose."""
    if device == "cpu":
        return rows
    found = torch.empty_strided(rows.shape, rows.stride(), dtype=rows.dtype, device=device)
    return found.copy_(rows)
