"""Transcoders: losses and gradients against plain formulas, and their exported forms."""

from typing import Any

import pytest
import torch

from saesweep.saes import Knobs, Normalizer, architecture_for, calibrate_threshold
from saesweep.specs.architectures import TRANSCODERS, architectures, spec_class

from .plain_formulas import (
    BATCH,
    D_IN,
    D_OUT,
    D_SAE,
    denormalized,
    make_batch,
    make_dead,
    make_params,
    make_spec,
    plain_losses,
)

KNOBS = Knobs(l1_coefficient=0.7, l0_coefficient=0.3, k=5)
OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("standard", {}),
    ("gated", {}),
    ("gated", {"detach_aux_decoder": True}),
    ("jumprelu", {"jumprelu_bandwidth": 0.6, "jumprelu_ste_to_input": True, "pre_act_loss_coefficient": 0.2}),
    ("topk", {}),
    ("batchtopk", {"rescale_acts_by_decoder_norm": False}),
    ("matryoshka_batchtopk", {"use_matryoshka_aux_loss": True}),
]
NAMES = [name for name in architectures() if spec_class(name).is_transcoder]


def make_target(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return (torch.randn(BATCH, D_OUT, generator=torch.Generator().manual_seed(5)) - 0.3).to(dtype)


@pytest.mark.parametrize("skip", ["", "_skip"])
@pytest.mark.parametrize("dead_share", [0.0, 0.1, 0.6])
@pytest.mark.parametrize(("architecture", "options"), OPTIONS, ids=lambda value: str(value))
def test_losses_and_gradients_equal_plain_formulas(
    architecture: str, options: dict[str, Any], dead_share: float, skip: str
) -> None:
    spec, dead_F = make_spec(f"{architecture}{skip}_transcoder", **options), make_dead(dead_share)
    params = {name: tensor.requires_grad_() for name, tensor in make_params(spec).items()}
    output = architecture_for(spec).forward(params, make_batch(), KNOBS, dead_F, make_target())
    expected = plain_losses(spec, params, make_batch(), KNOBS, dead_F, make_target())

    assert set(output.losses) == set(expected)
    for name, value in expected.items():
        assert output.losses[name].item() == pytest.approx(value.item(), rel=1e-9, abs=1e-9), name
    ours = torch.autograd.grad(output.loss, list(params.values()), allow_unused=True)
    plain = torch.autograd.grad(sum(expected.values()), list(params.values()), allow_unused=True)
    for name, got, want in zip(params, ours, plain, strict=True):
        assert (got is None) == (want is None), name
        if got is not None:
            torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-11, msg=name)


@pytest.mark.parametrize("name", NAMES)
def test_the_spec_counts_the_weights_that_training_makes(name: str) -> None:
    spec = make_spec(name)
    made = architecture_for(spec).init(torch.Generator().manual_seed(0))
    assert spec.n_parameters() == sum(weight.numel() for weight in made.values())
    assert made["W_dec"].shape == (D_SAE, D_OUT)
    assert made["W_enc"].shape == (D_IN, D_SAE)
    assert torch.allclose(made["W_enc"].norm(dim=0), torch.full((D_SAE,), 0.1))
    assert ("W_skip" in made) == ("skip" in name)


@pytest.mark.parametrize("mode", ["none", "expected_average_only_in", "covariance_whitening"])
@pytest.mark.parametrize("name", NAMES)
def test_the_exported_form_reconstructs_raw_activations_as_training_does(name: str, mode: str) -> None:
    spec = make_spec(name, normalize_activations=mode)
    architecture, params = architecture_for(spec), make_params(spec)
    x_BD, y_BO = 3 * make_batch(), 0.2 * make_target() + 1
    normalizer = Normalizer.fit(spec.normalize_activations, [x_BD], D_IN)
    target = Normalizer.fit(spec.normalize_activations, [y_BO], D_OUT)
    both = Normalizer(mode=normalizer.mode, scale=normalizer.scale, whitening=normalizer.whitening, target=target)
    scaled_BD = normalizer.apply(x_BD)
    threshold = None
    if architecture.needs_threshold:
        threshold = calibrate_threshold(lambda: [architecture.pre_acts_for_threshold(params, scaled_BD)], 5)
    exported = architecture.export(params, both, threshold).to(dtype=torch.float64)

    trained = architecture.forward(params, scaled_BD, KNOBS, None, target.apply(y_BO))
    assert exported.architecture == spec.saved_as
    assert (exported.d_in, exported.d_out, exported.cfg["d_out"]) == (D_IN, D_OUT, D_OUT)
    latents_BF, recon_BO = exported.encode(x_BD), exported(x_BD)
    assert recon_BO.shape == (BATCH, D_OUT)
    if not name.startswith("topk"):  # a threshold does not choose k of each token
        assert torch.equal(latents_BF != 0, trained.feature_acts_BF != 0)
        # fp32 weights
        torch.testing.assert_close(recon_BO, denormalized(target, trained.recon_BD), rtol=1e-4, atol=1e-4)
    else:
        assert float((latents_BF != 0).sum(1).double().mean()) == pytest.approx(5, abs=0.1)


def test_every_architecture_of_an_sae_has_both_transcoders() -> None:
    saes = [name for name in architectures() if not spec_class(name).is_transcoder]
    own = {str(spec.model_fields["architecture"].default) for spec in TRANSCODERS}
    assert own <= set(saes)
    assert {f"{name}{kind}" for name in own for kind in ("_transcoder", "_skip_transcoder")} == set(NAMES)


def test_an_sae_takes_no_target() -> None:
    spec = make_spec("standard")
    with pytest.raises(ValueError, match="normalizer of its target"):
        architecture_for(spec).export(
            make_params(spec), Normalizer(mode="none", target=Normalizer(mode="none")), threshold=None
        )
