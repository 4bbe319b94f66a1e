"""Initialisation: SAELens' scheme, from the seed alone."""

import pytest
import torch

from saesweep.saes import architecture_for
from saesweep.specs.architectures import spec_class

from .plain_formulas import D_IN, D_SAE, make_spec

ARCHITECTURES = ["standard", "gated", "jumprelu", "topk", "batchtopk", "matryoshka_batchtopk", "abstopk", "multi_k"]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_scheme(architecture: str) -> None:
    spec = make_spec(architecture, decoder_init_norm=0.3)
    params = architecture_for(spec).init(torch.Generator().manual_seed(0))
    assert params["W_enc"].shape == (D_IN, D_SAE)
    assert params["W_dec"].shape == (D_SAE, D_IN)
    torch.testing.assert_close(params["W_dec"].norm(dim=1), torch.full((D_SAE,), 0.3))
    assert torch.equal(params["W_enc"], params["W_dec"].t())
    assert params["W_enc"].data_ptr() != params["W_dec"].data_ptr(), "tied weights"
    assert params["W_enc"].t().is_contiguous(), "fast kernels need one row per latent"
    for name in params.keys() - {"W_enc", "W_dec", "threshold"}:
        assert not bool(params[name].any()), name
    assert "threshold" not in params or bool((params["threshold"] == 0.01).all())


def test_no_norm_keeps_the_draw() -> None:
    found = [
        architecture_for(make_spec("standard", decoder_init_norm=norm)).init(torch.Generator().manual_seed(0))["W_dec"]
        for norm in (None, 0.3)
    ]
    drawn, scaled = found
    torch.testing.assert_close(0.3 * drawn / drawn.norm(dim=1, keepdim=True), scaled)
    bound = (6 / D_IN) ** 0.5
    assert 0.9 * bound < float(drawn.abs().max()) <= bound


def test_matching_pursuit_has_one_matrix_of_unit_rows() -> None:
    params = architecture_for(make_spec("matching_pursuit")).init(torch.Generator().manual_seed(0))
    assert set(params) == {"W_dec", "b_dec"}
    torch.testing.assert_close(params["W_dec"].norm(dim=1), torch.ones(D_SAE))
    assert not bool(params["b_dec"].any())


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "matching_pursuit"])
def test_the_generator_alone_decides(architecture: str) -> None:
    implementation = architecture_for(make_spec(architecture))
    before = torch.random.get_rng_state()
    first = implementation.init(torch.Generator().manual_seed(7))
    again = implementation.init(torch.Generator().manual_seed(7))
    other = implementation.init(torch.Generator().manual_seed(8))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["W_dec"], other["W_dec"])


def test_a_seed_means_the_same_in_every_type() -> None:
    implementation = architecture_for(make_spec("standard"))
    single = implementation.init(torch.Generator().manual_seed(7))
    double = implementation.init(torch.Generator().manual_seed(7), dtype=torch.float64)
    assert double["W_dec"].dtype == torch.float64
    assert torch.equal(double["W_dec"].float(), single["W_dec"])


def test_directions_are_those_of_kaiming_uniform() -> None:
    spec = spec_class("standard")(d_in=16, d_sae=4096, decoder_init_norm=0.1)
    ours = architecture_for(spec).init(torch.Generator().manual_seed(0))["W_dec"]
    theirs = torch.nn.init.kaiming_uniform_(torch.empty(4096, 16), generator=torch.Generator().manual_seed(1))
    theirs = 0.1 * theirs / theirs.norm(dim=1, keepdim=True)
    levels = torch.linspace(0.02, 0.98, 25)
    torch.testing.assert_close(ours.flatten().quantile(levels), theirs.flatten().quantile(levels), atol=1.5e-3, rtol=0)
