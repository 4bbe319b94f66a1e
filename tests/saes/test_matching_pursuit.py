"""Latents that are found one after another."""

from typing import Any

import pytest
import torch

from saesweep.errors import UserError
from saesweep.saes import ExportedSAE, Normalizer, architecture_for
from saesweep.saes.matching_pursuit import pursue
from saesweep.saes.pretrained import Pretrained, pretrained_params

from .plain_formulas import D_IN, D_SAE, make_batch, make_params, make_spec


def found(x_BD: torch.Tensor, W_dec_FD: torch.Tensor, **options: Any) -> torch.Tensor:
    given = {"residual_threshold": 0.0, "max_iterations": 10, "stop_on_duplicate_support": True, **options}
    return pursue(x_BD, W_dec_FD, **given)


def test_orthogonal_rows_are_found_in_as_many_steps_as_there_are() -> None:
    rows = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))[0]
    f = torch.tensor([[3.0, 0, 0.5, 0, 0, 2.0], [0, 0, 0, 1.0, 0, 0]], dtype=torch.float64)
    torch.testing.assert_close(found(f @ rows, rows), f)
    # after two steps the two largest
    torch.testing.assert_close(found(f @ rows, rows, max_iterations=2), f * (f > 0.6))
    # a residual of 0.5 is short enough
    torch.testing.assert_close(found(f @ rows, rows, residual_threshold=0.6), f * (f > 0.6))


def test_latents_are_never_negative_and_a_token_without_any_stops() -> None:
    rows = torch.eye(3)
    assert found(torch.tensor([[-1.0, -2.0, -3.0]]), rows).tolist() == [[0.0, 0.0, 0.0]]
    assert found(torch.zeros(1, 3), rows, stop_on_duplicate_support=False).tolist() == [[0.0, 0.0, 0.0]]


@pytest.mark.parametrize("stop", [True, False])
def test_a_token_does_not_depend_on_its_neighbours(stop: bool) -> None:
    spec = make_spec("matching_pursuit")
    W_dec_FD, x_BD = make_params(spec)["W_dec"], make_batch()
    options = {"max_iterations": 12, "residual_threshold": 1.2, "stop_on_duplicate_support": stop}
    together = found(x_BD, W_dec_FD, **options)
    alone = torch.cat([found(row, W_dec_FD, **options) for row in x_BD.split(1)])
    torch.testing.assert_close(alone, together, rtol=1e-12, atol=1e-12)
    assert len(set((together != 0).sum(1).tolist())) > 1  # each token takes as many as it needs


def test_the_threshold_is_folded_into_the_units_of_raw_activations() -> None:
    spec = make_spec(
        "matching_pursuit", residual_threshold=0.7, normalize_activations="expected_average_only_in", dtype="float64"
    )
    exported = architecture_for(spec).export(make_params(spec), Normalizer(mode="expected_average_only_in", scale=0.1))
    assert exported.cfg["residual_threshold"] == pytest.approx(7.0)
    details = exported.metadata["training_architecture_details"]
    assert details["residual_threshold"] == 0.7  # what trains it again
    assert set(exported.tensors) == {"W_dec", "b_dec"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_iterations": 0}, "max_iterations must be a positive whole number, got 0"),
        ({"residual_threshold": "low"}, "residual_threshold must be a number, got 'low'"),
        ({"stop_on_duplicate_support": 1}, "stop_on_duplicate_support must be true or false, got 1"),
    ],
)
def test_a_cfg_that_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    spec = make_spec("matching_pursuit")
    exported = architecture_for(spec).export(make_params(spec), Normalizer(mode="none"))
    with pytest.raises(ValueError, match=message):
        ExportedSAE("matching_pursuit", {**exported.cfg, **change}, exported.tensors)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decoder_init_norm": 0.1}, "sae.decoder_init_norm: matching pursuit needs decoder rows of norm 1"),
        ({"normalize_activations": "covariance_whitening"}, "cannot be folded into matching pursuit"),
    ],
)
def test_options_that_it_cannot_have_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        architecture_for(make_spec("matching_pursuit", **options))


def test_weights_of_an_sae_that_centres_otherwise_are_refused() -> None:
    spec = make_spec("matching_pursuit")
    params = make_params(spec)
    other = Pretrained("there", params, "none", centred=False)
    with pytest.raises(UserError, match="no encoder bias to make up for another"):
        pretrained_params(other, architecture_for(spec), Normalizer(mode="none"), params)


def test_memory_grows_with_the_steps() -> None:
    few, many = (make_spec("matching_pursuit", max_iterations=n) for n in (2, 12))
    assert many.floats_per_token() - few.floats_per_token() == 3 * D_IN * 10
    assert few.n_parameters() == D_SAE * D_IN + D_IN
