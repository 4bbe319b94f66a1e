"""Exact selection against brute force."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from saesweep.cohort.kernels import select as select_module
from saesweep.cohort.kernels.select import Finder, find_above, sample_rows, top_of_batch, top_rows


def hidden(n_rows: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n_rows, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("width", "k"), [(256, 1), (256, 4), (256, 16), (192, 10), (250, 20), (64, 64), (1000, 7)])
def test_rows(width: int, k: int) -> None:
    h = hidden(37, width)
    values, latents = top_rows(h, k)
    assert torch.equal(h.gather(1, latents), values)
    assert torch.equal(values.sort(1).values, h.topk(k).values.sort(1).values)
    assert all(len(set(row)) == k for row in latents.tolist())


def test_rows_with_equal_values_keep_k_different_latents() -> None:
    h = torch.ones(3, 256)
    _, latents = top_rows(h, 5)
    assert all(len(set(row)) == 5 for row in latents.tolist())


def select(h: torch.Tensor, n_keep: int, sample: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor, int]:
    passes = 0

    def chunks() -> Iterator[Finder]:
        nonlocal passes
        passes += 1
        for start in range(0, h.shape[0], 16):
            yield find_above(h[start : start + 16], start)

    sample = h[sample_rows(h.shape[0])] if sample is None else sample
    values, flat = top_of_batch(chunks, sample, h.shape[0], n_keep)
    return values, flat, passes


def check(h: torch.Tensor, values: torch.Tensor, flat: torch.Tensor, n_keep: int) -> None:
    want = h.flatten().relu().topk(n_keep).values
    want = want[want > 0]
    assert torch.equal(values.sort(descending=True).values, want)
    assert torch.equal(h.flatten()[flat], values)
    assert torch.equal(flat, flat.unique())


@pytest.mark.parametrize("n_keep", [0, 1, 50, 500, 3200, 6400])
def test_batch(n_keep: int) -> None:
    h = hidden(100, 64)
    values, flat, _ = select(h, n_keep)
    check(h, values, flat, n_keep)


def test_batch_takes_one_pass_on_ordinary_activations() -> None:
    assert select(hidden(1000, 64), 4000)[2] == 1


def test_batch_with_a_guess_far_too_high_looks_again() -> None:
    h = hidden(100, 64)
    values, flat, passes = select(h, 500, sample=h[:3] + 5)
    check(h, values, flat, 500)
    assert passes > 1


def test_batch_with_a_guess_far_too_low_stays_within_memory() -> None:
    h = hidden(2000, 64)
    values, flat, passes = select(h, 300, sample=h[:3] - 50)
    check(h, values, flat, 300)
    assert passes == 1


def test_batch_of_unequal_tokens() -> None:
    h = hidden(512, 64)
    h[::8] *= 30
    values, flat, _ = select(h, 700)
    check(h, values, flat, 700)


def test_batch_with_fewer_positive_ones_than_asked_for() -> None:
    h = -hidden(100, 64).abs()
    h[3, 5] = 1.0
    values, flat, _ = select(h, 200)
    assert values.tolist() == [1.0]
    assert flat.tolist() == [3 * 64 + 5]


@pytest.mark.parametrize("n_keep", [1, 100, 1000])
def test_batch_with_ties_keeps_the_exact_number(n_keep: int) -> None:
    h = torch.randint(0, 3, (100, 64), generator=torch.Generator().manual_seed(0)).float()
    values, flat, _ = select(h, n_keep)
    assert values.shape == (n_keep,)
    check(h, values, flat, n_keep)


@pytest.mark.parametrize("n_keep", [1, 100, 1000])
@pytest.mark.parametrize("has_ties", [False, True])
def test_a_gpu_keeps_the_same_ones_in_the_same_order(
    n_keep: int, has_ties: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    h = hidden(100, 64)
    h = h.mul(2).round() if has_ties else h
    low = h[:3] - 50  # so many candidates that they are cut down on the way, too
    want = [select(h, n_keep), select(h, n_keep, sample=low)]
    monkeypatch.setattr(select_module, "_keep_largest", select_module._keep_by_sorting)
    for (values, flat, _), (found, places, _) in zip(
        want, [select(h, n_keep), select(h, n_keep, sample=low)], strict=True
    ):
        assert torch.equal(found, values)
        assert torch.equal(places, flat)
