"""Metrics against plain formulas on the whole set at once, whatever the batch sizes."""

import math

import pytest
import torch

from saesweep.evaluation import ReconstructionMetrics


def measured(x: torch.Tensor, recon: torch.Tensor, acts: torch.Tensor, sizes: list[int]) -> dict[str, float]:
    metrics = ReconstructionMetrics()
    for a, b, c in zip(x.split(sizes), recon.split(sizes), acts.split(sizes), strict=True):
        metrics.update(a, b, c)
    return metrics.compute()


@pytest.mark.parametrize("sizes", [[100], [1, 99], [50, 30, 20]])
def test_metrics_do_not_depend_on_batching(sizes: list[int]) -> None:
    torch.manual_seed(0)
    x = torch.randn(100, 5) * 3 + 40  # a large mean: squaring means of squares, or per-batch means, would show
    recon = x + 0.5 * torch.randn(100, 5)
    acts = torch.relu(torch.randn(100, 16))
    found = measured(x, recon, acts, sizes)
    x64, r64 = x.double(), recon.double()
    total = (x64 - x64.mean(0)).square().sum(-1).mean()
    error = (x64 - r64).square().sum(-1).mean()
    assert found["mse"] == pytest.approx(float(error), rel=1e-10)
    assert found["explained_variance"] == pytest.approx(float(1 - error / total), rel=1e-8)
    assert found["l0"] == pytest.approx(float((acts > 0).sum(-1).double().mean()))
    assert found["l1"] == pytest.approx(float(acts.double().sum(-1).mean()))
    assert found["l2_ratio"] == pytest.approx(float((r64.norm(dim=-1) / x64.norm(dim=-1)).mean()))
    assert found["relative_reconstruction_bias"] == pytest.approx(
        float(r64.square().sum(-1).mean() / (x64 * r64).sum(-1).mean())
    )
    assert found["cosine_similarity"] == pytest.approx(float(torch.cosine_similarity(x64, r64, dim=-1).mean()))


def test_perfect_reconstruction() -> None:
    x = torch.randn(20, 4)
    found = measured(x, x.clone(), torch.ones(20, 3), [20])
    assert found["explained_variance"] == 1.0
    assert found["mse"] == 0.0


def test_nothing_to_measure() -> None:
    with pytest.raises(ValueError, match="no activations"):
        ReconstructionMetrics().compute()


def test_zero_activations_do_not_blow_up_the_norm_ratio() -> None:
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    assert measured(x, x + 1, torch.ones(2, 1), [2])["l2_ratio"] == pytest.approx((16 + 25) ** 0.5 / 5)


def test_no_variance_has_no_share_explained() -> None:
    """Also where a bias alone reconstructs them exactly, and where rounding leaves a variance above or below zero."""
    for value in (0.0, 0.1, 1.0):
        x = torch.full((1000, 3), value)
        for recon in (x, x + 1):
            found = measured(x, recon, torch.ones(1000, 4), [1000])
            assert math.isnan(found["explained_variance"])
            assert math.isnan(found["cosine_similarity"]) == (value == 0)
