"""The mean absolute cosine between decoder directions, against the formula of the paper in float64."""

import math
import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from saesweep.evaluation import decoder_cosine


def plain(decoder_FD: Tensor) -> float:
    """Equation 4 of arXiv 2508.16560: the sum over i < j, over the number of pairs."""
    rows = decoder_FD.double().numpy()
    cosines = [
        abs(rows[i] @ rows[j]) / (np.linalg.norm(rows[i]) * np.linalg.norm(rows[j]))
        for i in range(len(rows) - 1)
        for j in range(i + 1, len(rows))
    ]
    return float(np.mean(cosines))


@pytest.mark.parametrize("n_latents", [2, 7, 64, 129])
@pytest.mark.parametrize("elements", [1, 300, 1 << 21])
def test_it_is_the_formula_in_pieces_of_any_size(
    n_latents: int, elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["saesweep.evaluation.decoder_cosine"], "_CPU_PIECE_ELEMENTS", elements)
    decoder_FD = torch.randn(n_latents, 12, generator=torch.Generator().manual_seed(n_latents)) * 3
    assert decoder_cosine(decoder_FD) == pytest.approx(plain(decoder_FD), rel=1e-5)


def test_the_ends_of_its_range() -> None:
    assert decoder_cosine(torch.eye(8)) == 0
    assert decoder_cosine(torch.ones(5, 3) * torch.tensor([1.0, -2.0, 3.0, -4.0, 5.0])[:, None]) == pytest.approx(1)
    assert math.isnan(decoder_cosine(torch.ones(1, 3)))


def test_a_row_of_zeros_shares_nothing_and_half_precision_is_read() -> None:
    rows_FD = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    assert decoder_cosine(rows_FD) == pytest.approx(math.sqrt(0.5) / 3)
    assert decoder_cosine(rows_FD.to(torch.bfloat16)) == pytest.approx(math.sqrt(0.5) / 3)
