"""Run-level normalisers: statistics in one pass, exact inverses, exact restoration."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from saesweep.errors import UserError
from saesweep.saes import Normalizer

from .plain_formulas import denormalized

D = 6


@pytest.fixture
def x_ND() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(300, D, generator=generator) @ torch.randn(D, D, generator=generator) + 2


def test_scale_brings_the_mean_norm_to_sqrt_d(x_ND: torch.Tensor) -> None:
    normalizer = Normalizer.fit("expected_average_only_in", x_ND.split(37), D)
    assert float(normalizer.apply(x_ND).norm(dim=1).mean()) == pytest.approx(D**0.5, rel=1e-6)
    torch.testing.assert_close(denormalized(normalizer, normalizer.apply(x_ND)), x_ND)


def test_whitening_gives_mean_zero_and_unit_covariance(x_ND: torch.Tensor) -> None:
    normalizer = Normalizer.fit("covariance_whitening", x_ND.split(37), D)
    z_ND = normalizer.apply(x_ND.double())
    torch.testing.assert_close(z_ND.mean(0), torch.zeros(D, dtype=torch.float64), atol=1e-9, rtol=0)
    lambda_D = torch.linalg.eigvalsh(x_ND.double().T.cov())
    torch.testing.assert_close(z_ND.T.cov().diag(), lambda_D / (lambda_D + 1e-3), atol=1e-9, rtol=0)
    torch.testing.assert_close(denormalized(normalizer, z_ND), x_ND.double())


def test_statistics_are_pooled_over_tokens_not_over_batches(x_ND: torch.Tensor) -> None:
    for mode in ("expected_average_only_in", "covariance_whitening"):
        whole = Normalizer.fit(mode, [x_ND], D).apply(x_ND)
        uneven = Normalizer.fit(mode, [x_ND[:7], x_ND[7:]], D).apply(x_ND)
        torch.testing.assert_close(whole, uneven)


def test_no_batch_is_kept(x_ND: torch.Tensor) -> None:
    """A source that reuses one buffer, as a ring does, must not disturb the sums."""
    buffer = torch.empty(50, D)

    def batches() -> Iterator[torch.Tensor]:
        for part in x_ND.split(50):
            buffer.copy_(part)
            yield buffer

    assert Normalizer.fit("expected_average_only_in", batches(), D).scale == pytest.approx(
        D**0.5 / float(x_ND.double().norm(dim=1).mean())
    )


@pytest.mark.parametrize("mode", ["none", "layer_norm", "constant_norm_rescale"])
def test_other_modes_are_identities_and_need_no_data(mode: str, x_ND: torch.Tensor) -> None:
    def untouchable() -> Iterator[torch.Tensor]:
        raise AssertionError("read a batch")
        yield

    normalizer = Normalizer.fit(mode, untouchable(), D)
    assert normalizer.apply(x_ND) is x_ND


@pytest.mark.parametrize("mode", ["none", "expected_average_only_in", "covariance_whitening"])
def test_state_survives_files_exactly(mode: str, x_ND: torch.Tensor, tmp_path: Path) -> None:
    normalizer = Normalizer.fit(mode, [x_ND], D)
    values, tensors = normalizer.state_dict()
    save_file(tensors, tmp_path / "normalizer.safetensors")
    restored = Normalizer.from_state_dict(
        json.loads(json.dumps(values)), load_file(tmp_path / "normalizer.safetensors")
    )
    assert restored.mode == mode
    assert torch.equal(restored.apply(x_ND), normalizer.apply(x_ND))


@pytest.mark.parametrize("mode", ["expected_average_only_in", "covariance_whitening"])
def test_half_precision_is_not_rounded_twice(mode: str, x_ND: torch.Tensor) -> None:
    half = x_ND.bfloat16()
    normalizer = Normalizer.fit(mode, [half], D)
    assert normalizer.apply(half).dtype == torch.float32
    assert torch.equal(normalizer.apply(half), normalizer.apply(half.float()))


@pytest.mark.parametrize("mode", ["expected_average_only_in", "covariance_whitening"])
def test_useless_activations_are_a_user_error(mode: str, x_ND: torch.Tensor) -> None:
    with pytest.raises(UserError, match="normalize_activations"):
        Normalizer.fit(mode, [], D)
    broken = x_ND.clone()
    broken[5, 2] = float("nan")
    with pytest.raises(UserError, match="normalize_activations"):
        Normalizer.fit(mode, [broken], D)
    with pytest.raises(ValueError, match="must be"):
        Normalizer.fit(mode, [x_ND[:, :3]], D)


def test_all_zero_activations_have_no_scale() -> None:
    with pytest.raises(UserError, match="mean norm"):
        Normalizer.fit("expected_average_only_in", [torch.zeros(4, D)], D)
