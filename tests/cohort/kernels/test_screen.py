"""The half-precision screen, as a CPU and as a GPU computes it: its bound, and that it never loses a pair."""

from __future__ import annotations

import pytest
import torch

from saesweep.cohort.kernels.pairs import PairKernels, Pairs, triton_or_none
from saesweep.cohort.kernels.scratch import Scratch
from saesweep.cohort.kernels.screen import CPU, GPU, HalfPrecision, Screen, round_rows, top_of_pairs
from saesweep.cohort.kernels.selected import rows_by_margin

R, D, F = 40, 50, 512


PRECISIONS = [pytest.param(CPU, id="bf16"), pytest.param(GPU, id="fp16")]
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def inputs(kind: str, step: float = 2**-8) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    x, W, b = torch.randn(R, D, generator=g), torch.randn(F, D, generator=g), torch.randn(F, generator=g)
    if kind == "uneven rows":
        x *= 10 ** torch.linspace(-4, 4, R)[:, None]
        W *= 10 ** torch.linspace(-2, 2, F)[:, None]
    if kind == "large bias":
        b *= 1000
    if kind == "worst rounding":
        # Next to the middle of two numbers of half precision: one half rounds down with products of one sign, the other rounds up with
        # products of the other. All errors add up while the products cancel, so that nothing hides a bound too small.
        half = torch.cat([torch.full((D // 2,), 1 + step - 2**-20), torch.full((D // 2,), 1 + step + 2**-20)])
        signs = torch.cat([torch.ones(D // 2), -torch.ones(D // 2)])
        x, W, b = half.expand(R, D).clone(), (half * signs).expand(F, D).clone(), 1e-6 * b
    if kind == "near ties":
        W = W[:1] + 1e-5 * W
    return x, W, b


KINDS = ["plain", "uneven rows", "large bias", "worst rounding", "near ties"]


def screen_of(x: torch.Tensor, W: torch.Tensor, b: torch.Tensor, precision: HalfPrecision | None = None) -> Screen:
    return Screen(x, W, b, Scratch(), precision)


def has_bound(screen: Screen) -> bool:
    return bool(screen.scores(slice(0, R))[1].isfinite().all())


def test_where_there_is_a_bound() -> None:
    assert all(has_bound(screen_of(*inputs(kind), CPU)) for kind in KINDS)
    assert [kind for kind in KINDS if not has_bound(screen_of(*inputs(kind), GPU))] == ["uneven rows", "large bias"]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_scores_stay_within_the_bound(kind: str, precision: HalfPrecision) -> None:
    x, W, b = inputs(kind)
    screen = screen_of(x, W, b, precision)
    score, bound = screen.scores(slice(0, R))
    exact = (x.double() @ W.double().t() + b) * screen.precision.weight_scale
    off = ~((score.double() - exact).abs() <= bound[:, None] + exact.abs() * precision.score_rounding)
    assert not bool((off & bound.isfinite()[:, None]).any())


@pytest.mark.gpu
@pytest.mark.parametrize("kernels", ["torch", "triton"])
@pytest.mark.parametrize("kind", KINDS)
def test_scores_of_a_gpu_stay_within_the_bound(kind: str, kernels: PairKernels) -> None:
    x, W, b = inputs(kind)
    screen = Screen(x.cuda(), W.cuda(), b.cuda(), Scratch(), kernels=kernels)
    score, bound = (t.double().cpu() for t in screen.scores(slice(0, R)))
    exact = (x.double() @ W.double().t() + b) * screen.precision.weight_scale
    off = ~((score - exact).abs() <= bound[:, None] + exact.abs() * screen.precision.score_rounding)
    assert not bool((off & bound.isfinite()[:, None]).any())


@pytest.mark.parametrize(("precision", "step"), [(CPU, 2**-8), (GPU, 2**-11)], ids=["bf16", "fp16"])
def test_the_bound_is_not_idle(precision: HalfPrecision, step: float) -> None:
    x, W, b = inputs("worst rounding", step)
    screen = screen_of(x, W, b, precision)
    score, bound = screen.scores(slice(0, R))
    exact = (x.double() @ W.double().t() + b) * screen.precision.weight_scale
    assert ((score.double() - exact).abs() / bound[:, None]).max() > 0.9


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", [*KINDS, "not a number"])
@pytest.mark.parametrize("k", [1, 5, 16])
def test_rows_by_margin_are_the_largest(kind: str, k: int, device: str) -> None:
    x, W, b = inputs("plain" if kind == "not a number" else kind)
    if kind == "not a number":
        x[3, 4] = float("nan")
    chunk = screen_of(x.to(device), W.to(device), b.to(device), GPU).chunk(slice(0, R))
    values, latents = rows_by_margin(chunk, x.to(device), W.to(device), b.to(device), k, "torch", 7)
    plain = torch.addmm(b.to(device), x.to(device), W.to(device).t())
    exact = x.double() @ W.double().t() + b
    fine = [row for row in range(R) if kind != "not a number" or row != 3]
    scale = x.norm(dim=1, keepdim=True)[fine].double() * W.norm(dim=1).max() + b.abs().max()
    got = exact.gather(1, latents.cpu())[fine].sort(1, descending=True).values
    # Which of two is the larger is decided in fp32; in float64 they may have changed places.
    assert bool(((got - exact[fine].topk(k).values).abs() <= 1e-6 * scale).all())
    assert bool(((values.double().cpu() - exact.gather(1, latents.cpu()))[fine].abs() <= 1e-6 * scale).all())
    assert bool(latents.sort(1).values.diff(dim=1).ne(0)[fine].all())
    if kind == "not a number":
        assert bool(plain[3].isnan().all())
        assert bool(values[3].isnan().all())


def as_set(pairs: Pairs) -> set[tuple[int, int]]:
    return set(zip(pairs.rows_P.tolist(), pairs.cols_P.tolist(), strict=True))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [1, 5, 16])
def test_no_one_of_the_k_largest_is_lost(kind: str, k: int, precision: HalfPrecision) -> None:
    x, W, b = inputs(kind)
    screen = screen_of(x, W, b, precision)
    chunk = screen.chunk(slice(0, R))
    if not has_bound(screen):
        return
    lower = chunk.kth_at_least(k)
    exact = x.double() @ W.double().t() + b
    assert bool((exact >= lower[:, None]).sum(1).ge(k).all())
    pairs = chunk.above(lower)
    top = exact.topk(k).indices
    assert {(row, col) for row in range(R) for col in top[row].tolist()} <= as_set(pairs)
    values, latents = top_of_pairs(pairs, exact[pairs.rows_P, pairs.cols_P], k)
    assert torch.equal(values.sort(1, descending=True).values, exact.topk(k).values)
    assert torch.equal(exact.gather(1, latents), values)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_no_pair_above_a_threshold_is_lost(kind: str, precision: HalfPrecision) -> None:
    x, W, b = inputs(kind)
    exact = x.double() @ W.double().t() + b
    screen = screen_of(x, W, b, precision)
    chunk = screen.chunk(slice(0, R))
    if not has_bound(screen):
        # fp16 overflows: callers ask first, and compute in full.
        assert chunk.share_above(torch.full((R,), torch.inf), every=8) == 1
        return
    for share in (0.5, 0.9, 0.99):
        threshold = exact.quantile(share, dim=1).float()
        pairs = chunk.above(threshold)
        wanted = {tuple(at) for at in (exact > threshold[:, None]).nonzero().tolist()}
        assert wanted <= as_set(pairs)
        assert bool(pairs.rows_P.diff().ge(0).all())
        assert len(as_set(pairs)) == pairs.rows_P.shape[0]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("what", ["inputs", "weights", "biases"])
def test_what_overflows_is_computed_in_full(precision: HalfPrecision, what: str) -> None:
    x, W, b = inputs("plain")
    if what == "inputs":
        x[7] *= 1e6
    elif what == "weights":
        W[5] *= 1e6
    else:
        b[5] = -1e6
    values, latents = rows_by_margin(screen_of(x, W, b, precision).chunk(slice(0, R)), x, W, b, 5, "torch", 64)
    want = torch.addmm(b, x, W.t()).topk(5)
    assert torch.equal(latents.sort(1).values, want.indices.sort(1).values)
    torch.testing.assert_close(values.sort(1, descending=True).values, want.values, rtol=1e-5, atol=0)


@pytest.mark.gpu
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("d_in", [3, 64, 1500])
def test_triton_rounds_as_torch_does(d_in: int, bias: bool) -> None:
    kernels = triton_or_none()
    assert kernels is not None
    rows, biases = torch.randn(9, d_in).cuda(), torch.randn(9).cuda() if bias else None
    ours, plain = (torch.full((9, d_in + 40), 7.0, dtype=torch.float16).cuda() for _ in range(2))
    norms = kernels.round_rows(rows, biases, 256.0 if bias else 1.0, out_RE=ours)
    wanted = round_rows(rows, biases, 256.0 if bias else 1.0, out_RE=plain)
    assert torch.equal(ours, plain)
    torch.testing.assert_close(norms, wanted, rtol=1e-5, atol=1e-9)


def test_it_discards_most() -> None:
    x, W, b = inputs("plain")
    chunk = screen_of(x, W, 0 * b).chunk(slice(0, R))
    assert chunk.above(chunk.kth_at_least(5)).rows_P.shape[0] < 4 * 5 * R


def test_a_width_that_does_not_divide_into_groups() -> None:
    x, W, b = inputs("plain")
    W, b = W[:333], b[:333]
    exact = x.double() @ W.double().t() + b
    threshold = exact.quantile(0.9, dim=1).float()
    pairs = screen_of(x, W, b).chunk(slice(0, R)).above(threshold)
    assert {tuple(at) for at in (exact > threshold[:, None]).nonzero().tolist()} <= as_set(pairs)
    assert not Screen.serves(333, 4)


def test_what_is_not_a_number_selects_nothing() -> None:
    x, W, b = inputs("plain")
    x[3, 4] = float("nan")
    chunk = screen_of(x, W, b).chunk(slice(0, R))
    assert 3 not in chunk.above(torch.zeros(R)).rows_P.tolist()
