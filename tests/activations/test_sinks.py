"""Attention sinks are found before training, with their share, their place and the setting that leaves them out."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from saesweep.activations import find_sinks
from saesweep.activations.held_out import HeldOut

N, T, D = 16, 64, 8
BOS = 1


class Part(HeldOut):
    """Held-out rows of unit norm, times a factor for each position that counts."""

    mask_NT: Tensor = torch.empty(0)
    n_tokens: int = 0

    def __init__(self, factor_NT: Tensor, mask_NT: Tensor | None = None, *, first_token: int = 5) -> None:
        rows_NTD = torch.nn.functional.normalize(
            torch.randn(N, T, D, generator=torch.Generator().manual_seed(0)), dim=-1
        )
        self.mask_NT = torch.ones(N, T, dtype=torch.bool) if mask_NT is None else mask_NT
        self.tokens_NT = torch.full((N, T), 7)
        self.tokens_NT[:, 0] = first_token
        self._rows_MD = (rows_NTD * factor_NT[..., None])[self.mask_NT]
        self.n_tokens = len(self._rows_MD)

    def batches(self, hook: str, max_tokens: int | None = None) -> Iterator[Tensor]:
        yield from self._rows_MD[:max_tokens].split(100)


def factors(first: float) -> Tensor:
    found = torch.ones(N, T)
    found[:, 0] = first
    return found


def test_the_first_position_of_every_context() -> None:
    found = find_sinks(Part(factors(168.0)), "h")
    assert found is not None
    assert (found.count, found.tokens, found.positions) == (N, N * T, ((0, N),))
    assert found.largest_multiple == pytest.approx(168, rel=1e-4)
    assert found.variance_share == pytest.approx(N * 168**2 / (N * 168**2 + N * (T - 1)), abs=0.01)
    assert found.multiple == 10
    assert not found.are_special
    message = found.message()
    assert "16 of 1,024 tokens (1.6%) hold 100% of the variance, all of them at position 0" in message
    assert "up to 168 times the median" in message
    assert "set base.max_activation_norm_multiple: 10 to leave them out" in message


@pytest.mark.parametrize(("first", "multiple"), [(30.0, 10), (9.0, 5), (4.5, 3)])
def test_the_setting_leaves_them_out(first: float, multiple: float) -> None:
    found = find_sinks(Part(factors(first)), "h")
    assert found is not None
    assert found.multiple == multiple
    assert found.limit == pytest.approx(multiple, rel=1e-4)


def test_sinks_below_the_usual_multiple_count_where_they_are_most() -> None:
    """A few tokens are beyond 10 times the median, and most of the variance is in others at 7 times."""
    factor_NT = factors(7.0)
    factor_NT[0, 0] = 11.0
    found = find_sinks(Part(factor_NT), "h")
    assert found is not None
    assert (found.multiple, found.count) == (5, N)


@pytest.mark.parametrize("first", [1.0, 2.9])
def test_even_norms_are_no_sinks(first: float) -> None:
    assert find_sinks(Part(factors(first)), "h") is None


def test_a_heavy_tail_is_no_sink() -> None:
    factor_NT = torch.ones(N, T)
    factor_NT[:, : T // 8] = 20.0
    assert find_sinks(Part(factor_NT), "h") is None


def test_tokens_that_are_left_out_already_are_not_looked_at() -> None:
    mask_NT = torch.ones(N, T, dtype=torch.bool)
    mask_NT[:, 0] = False
    assert find_sinks(Part(factors(168.0), mask_NT), "h") is None
    factor_NT = factors(168.0)
    factor_NT[3, 9] = 200.0
    found = find_sinks(Part(factor_NT, mask_NT), "h")
    assert found is not None
    assert found.positions == ((9, 1),)


def test_special_tokens_have_a_setting_of_their_own() -> None:
    found = find_sinks(Part(factors(168.0), first_token=BOS), "h", {BOS, 2})
    assert found is not None
    assert found.are_special
    assert "max_activation_norm_multiple: 10, or base.exclude_special_tokens: true" in found.message()
    other = find_sinks(Part(factors(168.0)), "h", {BOS, 2})
    assert other is not None
    assert not other.are_special


def test_rows_that_are_not_finite_or_all_zero_are_somebody_elses_matter() -> None:
    factor_NT = factors(168.0)
    factor_NT[2, 5] = float("nan")
    found = find_sinks(Part(factor_NT), "h")
    assert found is not None
    assert (found.count, found.tokens) == (N, N * T - 1)
    assert find_sinks(Part(torch.zeros(N, T)), "h") is None
