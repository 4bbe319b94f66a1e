"""Products out of fp16 parts are float32 products in more than name."""

from __future__ import annotations

import pytest
import torch

from saesweep.cohort.kernels import gemm_error
from saesweep.cohort.kernels.gemm import add_product_, product, split_product

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def factors(kind: str, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    left, right = torch.randn(48, 300, generator=g), torch.randn(300, 40, generator=g)
    if kind == "tiny":
        left *= 1e-9
    if kind == "tiny both":
        left *= 1e-16
        right *= 1e-16
    if kind == "huge":
        left *= 1e12
    if kind == "uneven":
        right *= 10 ** torch.linspace(-8, 2, 300)[:, None]
        left *= 10 ** torch.linspace(-6, 0, 48)[:, None]
    if kind == "zero":
        left *= 0
    return left.to(device), right.to(device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", ["plain", "tiny", "tiny both", "huge", "uneven", "zero"])
@pytest.mark.parametrize("left_transposed", [False, True])
@pytest.mark.parametrize("right_transposed", [False, True])
def test_it_is_as_exact_as_float32(kind: str, left_transposed: bool, right_transposed: bool, device: str) -> None:
    left, right = factors(kind, device)
    exact = left.double() @ right.double()
    # Rows far below the largest number of their factor keep that number's last place.
    scale = left.double().norm(dim=1).max() * right.double().norm(dim=0).max()
    left = left.t().contiguous().t() if left_transposed else left
    right = right.t().contiguous().t() if right_transposed else right
    # A GPU's matrix units cut sums off instead of rounding them: 3.1e-7 was measured on an H100.
    limit = (2e-7 if device == "cpu" else 5e-7) * scale
    assert (split_product(left, right).double() - exact).abs().max() <= limit
    out = torch.full((48, 40), 7.0, device=device)
    assert split_product(left, right, out_MN=out) is out
    assert (out.double() - exact).abs().max() <= limit


def test_factors_of_any_layout() -> None:
    left, right = factors("plain", "cpu")
    assert torch.equal(split_product(left[:, ::2], right[::2]), split_product(left[:, ::2].clone(), right[::2].clone()))


@pytest.mark.parametrize("device", DEVICES)
def test_what_is_not_finite_stays_so(device: str) -> None:
    left, right = factors("plain", device)
    left[3, 4] = float("inf")
    assert not bool(split_product(left, right)[3].isfinite().any())


@pytest.mark.parametrize("device", DEVICES)
def test_bias_and_sum(device: str) -> None:
    left, right = factors("plain", device)
    bias = torch.arange(40.0, device=device)
    total = product("split_fp16", left, right, bias_N=bias)
    torch.testing.assert_close(total, torch.addmm(bias, left, right), rtol=1e-5, atol=1e-4)
    add_product_("split_fp16", total, left, right)
    torch.testing.assert_close(total, 2 * (left @ right) + bias, rtol=1e-5, atol=2e-4)


def test_float64_takes_the_plain_product() -> None:
    left, right = (t.double() for t in factors("plain", "cpu"))
    assert torch.equal(product("split_fp16", left, right), left @ right)


def test_a_cpu_does_not_offer_it() -> None:
    assert gemm_error("split_fp16", 64, 512) == float("inf")


@pytest.mark.gpu
@pytest.mark.parametrize("d_in", [3, 64, 700, 2304])
def test_a_gpu_offers_it(d_in: int) -> None:
    assert gemm_error("split_fp16", d_in, 4096, device="cuda") < 1e-6
