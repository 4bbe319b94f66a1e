"""Explained variance without attention sinks: the formula on the other tokens, whatever the batches."""

import math

import pytest
import torch

from saesweep.evaluation import ReconstructionMetrics
from saesweep.evaluation.reconstruction import VarianceWithoutSinks

LIMIT = 10.0


def test_it_is_explained_variance_on_the_other_tokens() -> None:
    torch.manual_seed(0)
    x_ND, recon_ND = torch.randn(40, 6), torch.randn(40, 6)
    x_ND[::10] *= 1000
    context_N = torch.arange(40) // 8
    sums, plain = VarianceWithoutSinks(LIMIT), ReconstructionMetrics()
    for start in (0, 1, 11, 33):
        stop = {0: 1, 1: 11, 11: 33, 33: 40}[start]
        sums.update(x_ND[start:stop], recon_ND[start:stop], context_N[start:stop])
    keep_N = x_ND.norm(dim=-1) <= LIMIT
    assert int(keep_N.sum()) == 36
    plain.update(x_ND[keep_N], recon_ND[keep_N], torch.ones(36, 1), context_N[keep_N])
    assert sums.compute() == pytest.approx(plain.compute()["explained_variance"], rel=1e-12)
    assert sums.standard_error() == pytest.approx(plain.standard_errors()["explained_variance_stderr"], rel=1e-12)
    assert float(sums.by_context().values()[0]) == pytest.approx(sums.compute(), rel=1e-12)


def test_nothing_but_sinks_has_no_variance() -> None:
    sums = VarianceWithoutSinks(LIMIT)
    assert math.isnan(sums.compute())
    sums.update(torch.full((3, 4), 100.0), torch.zeros(3, 4), torch.zeros(3, dtype=torch.int64))
    assert math.isnan(sums.compute())
    with pytest.raises(ValueError, match="no context numbers"):
        VarianceWithoutSinks(LIMIT).by_context()
