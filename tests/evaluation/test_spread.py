"""Standard errors over contexts, against resampling and closed forms."""

import math

import pytest
import torch

from saesweep.evaluation import ReconstructionMetrics
from saesweep.evaluation.spread import ContextSums, ratio_stderr

CONTEXTS, TOKENS, WIDTH = 60, 10, 4


def test_the_error_of_a_mean_of_equal_contexts_is_the_textbook_one() -> None:
    means_C = torch.randn(50, dtype=torch.float64)
    tokens_C = torch.full((50,), 7.0)
    assert ratio_stderr(means_C * 7, tokens_C) == pytest.approx(float(means_C.std()) / math.sqrt(50))


def test_one_context_has_no_error() -> None:
    assert math.isnan(ratio_stderr(torch.ones(1), torch.ones(1)))
    assert math.isnan(ratio_stderr(torch.ones(3), torch.tensor([5, 0, 0])))  # empty contexts do not count


def test_a_context_may_come_in_pieces() -> None:
    context_N = torch.tensor([0, 0, 1, 1, 1, 4])
    value_N = torch.arange(6.0)
    whole, pieces = ContextSums(), ContextSums()
    whole.add(context_N, v=value_N)
    for start in range(0, 6, 2):
        pieces.add(context_N[start : start + 2], v=value_N[start : start + 2])
    assert torch.equal(whole.of("v"), pieces.of("v"))
    assert whole.of("v").tolist() == [1.0, 9.0, 5.0]


def sample(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Activations whose level and error are shared by the tokens of a context."""
    level = torch.randn(CONTEXTS, 1, WIDTH, generator=generator)
    x = level + torch.randn(CONTEXTS, TOKENS, WIDTH, generator=generator)
    noise = 0.3 + torch.rand(CONTEXTS, 1, 1, generator=generator)
    recon = x + noise * torch.randn(CONTEXTS, TOKENS, WIDTH, generator=generator)
    acts = (torch.rand(CONTEXTS, TOKENS, 6, generator=generator) < noise / 2).float()
    return x.flatten(0, 1), recon.flatten(0, 1), acts.flatten(0, 1)


def test_errors_are_the_spread_of_repeated_measurements() -> None:
    """Draw the whole held-out set anew 200 times: the metrics must scatter as the stated errors say."""
    generator = torch.Generator().manual_seed(0)
    context_N = torch.arange(CONTEXTS).repeat_interleave(TOKENS)
    measured, stated = [], []
    for _ in range(200):
        metrics = ReconstructionMetrics()
        metrics.update(*sample(generator), context_N)
        measured.append(metrics.compute())
        stated.append(metrics.standard_errors())
    for name in ("mse", "explained_variance", "l0", "l1", "cosine_similarity", "l2_ratio"):
        scatter = float(torch.tensor([m[name] for m in measured]).std())
        claimed = float(torch.tensor([s[f"{name}_stderr"] for s in stated]).mean())
        assert claimed == pytest.approx(scatter, rel=0.2), name


def test_silent_latents() -> None:
    metrics = ReconstructionMetrics()
    x = torch.randn(4, 3)
    acts = torch.zeros(4, 5)
    acts[1, 2] = acts[3, 4] = 1.0
    metrics.update(x, x, acts, torch.tensor([0, 0, 1, 1]))
    assert metrics.silent_fraction() == pytest.approx(3 / 5)


def test_errors_need_contexts() -> None:
    metrics = ReconstructionMetrics()
    metrics.update(torch.randn(2, 3), torch.randn(2, 3), torch.ones(2, 5))
    with pytest.raises(ValueError, match="no context numbers"):
        metrics.standard_errors()
