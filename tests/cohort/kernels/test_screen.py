"""The bf16 screen: its bound, and that it never loses a pair."""

from __future__ import annotations

import pytest
import torch

from saesweep.cohort.kernels.pairs import Pairs
from saesweep.cohort.kernels.scratch import Scratch
from saesweep.cohort.kernels.screen import SCORE_ROUNDING, Screen, top_of_pairs

R, D, F = 40, 50, 512


def inputs(kind: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    x, W, b = torch.randn(R, D, generator=g), torch.randn(F, D, generator=g), torch.randn(F, generator=g)
    if kind == "uneven rows":
        x *= 10 ** torch.linspace(-4, 4, R)[:, None]
        W *= 10 ** torch.linspace(-2, 2, F)[:, None]
    if kind == "large bias":
        b *= 1000
    if kind == "worst rounding":
        # Next to the middle of two bf16 numbers: one half rounds down with products of one sign, the other rounds up with
        # products of the other. All errors add up while the products cancel, so that nothing hides a bound too small.
        half = torch.cat([torch.full((D // 2,), 1 + 2**-8 - 2**-20), torch.full((D // 2,), 1 + 2**-8 + 2**-20)])
        signs = torch.cat([torch.ones(D // 2), -torch.ones(D // 2)])
        x, W, b = half.expand(R, D).clone(), (half * signs).expand(F, D).clone(), 1e-6 * b
    if kind == "near ties":
        W = W[:1] + 1e-5 * W
    return x, W, b


KINDS = ["plain", "uneven rows", "large bias", "worst rounding", "near ties"]


def screen_of(x: torch.Tensor, W: torch.Tensor, b: torch.Tensor) -> Screen:
    return Screen(x, W, b, Scratch())


@pytest.mark.parametrize("kind", KINDS)
def test_scores_stay_within_the_bound(kind: str) -> None:
    x, W, b = inputs(kind)
    score, bound = screen_of(x, W, b).scores(slice(0, R))
    exact = x.double() @ W.double().t() + b
    assert bool(((score.double() - exact).abs() <= bound[:, None] + exact.abs() * SCORE_ROUNDING).all())


def test_the_bound_is_not_idle() -> None:
    score, bound = screen_of(*(args := inputs("worst rounding"))).scores(slice(0, R))
    exact = args[0].double() @ args[1].double().t() + args[2]
    assert ((score.double() - exact).abs() / bound[:, None]).max() > 0.9


def as_set(pairs: Pairs) -> set[tuple[int, int]]:
    return set(zip(pairs.rows_P.tolist(), pairs.cols_P.tolist(), strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [1, 5, 16])
def test_no_one_of_the_k_largest_is_lost(kind: str, k: int) -> None:
    x, W, b = inputs(kind)
    chunk = screen_of(x, W, b).chunk(slice(0, R))
    lower = chunk.kth_lower_bound(k)
    exact = x.double() @ W.double().t() + b
    assert bool((exact >= lower[:, None]).sum(1).ge(k).all())
    pairs = chunk.above(lower)
    top = exact.topk(k).indices
    assert {(row, col) for row in range(R) for col in top[row].tolist()} <= as_set(pairs)
    values, latents = top_of_pairs(pairs, exact[pairs.rows_P, pairs.cols_P], k)
    assert torch.equal(values.sort(1, descending=True).values, exact.topk(k).values)
    assert torch.equal(exact.gather(1, latents), values)


@pytest.mark.parametrize("kind", KINDS)
def test_no_pair_above_a_threshold_is_lost(kind: str) -> None:
    x, W, b = inputs(kind)
    exact = x.double() @ W.double().t() + b
    chunk = screen_of(x, W, b).chunk(slice(0, R))
    for share in (0.5, 0.9, 0.99):
        threshold = exact.quantile(share, dim=1).float()
        pairs = chunk.above(threshold)
        wanted = {tuple(at) for at in (exact > threshold[:, None]).nonzero().tolist()}
        assert wanted <= as_set(pairs)
        assert bool(pairs.rows_P.diff().ge(0).all())
        assert len(as_set(pairs)) == pairs.rows_P.shape[0]


def test_it_discards_most() -> None:
    x, W, b = inputs("plain")
    chunk = screen_of(x, W, 0 * b).chunk(slice(0, R))
    assert chunk.above(chunk.kth_lower_bound(5)).rows_P.shape[0] < 4 * 5 * R


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
