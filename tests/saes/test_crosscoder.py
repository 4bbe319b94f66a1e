"""Crosscoders: losses and gradients against plain formulas, factors by layer, and their exported forms."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from saesweep.errors import UserError
from saesweep.saes import (
    Knobs,
    Normalizer,
    architecture_for,
    calibrate_threshold,
    load_sae_folder,
    pretrained_params,
    read_pretrained,
    save_sae_folder,
)
from saesweep.specs.architectures import CROSSCODERS, architectures, spec_class

from .plain_formulas import (
    BATCH,
    D_IN,
    D_SAE,
    N_LAYERS,
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
    ("standard", {"lp_norm": 2.0}),
    ("jumprelu", {"jumprelu_bandwidth": 0.6, "jumprelu_ste_to_input": True, "pre_act_loss_coefficient": 0.2}),
    ("jumprelu", {"jumprelu_bandwidth": 0.6, "jumprelu_sparsity_loss_mode": "tanh"}),
    ("topk", {}),
    ("batchtopk", {}),
    ("batchtopk", {"rescale_acts_by_decoder_norm": False}),
]
NAMES = [name for name in architectures() if spec_class(name).is_crosscoder]
LAYER = D_IN // N_LAYERS
FACTORS = torch.tensor([1.0, 7.0, 0.2], dtype=torch.float64)
"""How much larger activations are at each layer."""


def at_layers() -> torch.Tensor:
    """Activations whose layers differ in size, [BATCH, D_IN]."""
    return make_batch() * FACTORS.repeat_interleave(LAYER)


@pytest.mark.parametrize("dead_share", [0.0, 0.6])
@pytest.mark.parametrize(("architecture", "options"), OPTIONS, ids=lambda value: str(value))
def test_losses_and_gradients_equal_plain_formulas(
    architecture: str, options: dict[str, Any], dead_share: float
) -> None:
    spec, dead_F = make_spec(f"{architecture}_crosscoder", **options), make_dead(dead_share)
    params = {name: tensor.requires_grad_() for name, tensor in make_params(spec).items()}
    output = architecture_for(spec).forward(params, at_layers(), KNOBS, dead_F)
    expected = plain_losses(spec, params, at_layers(), KNOBS, dead_F)

    assert set(output.losses) == set(expected)
    for name, value in expected.items():
        assert output.losses[name].item() == pytest.approx(value.item(), rel=1e-9, abs=1e-9), name
    ours = torch.autograd.grad(output.loss, list(params.values()))
    plain = torch.autograd.grad(sum(expected.values()), list(params.values()))
    for name, got, want in zip(params, ours, plain, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-11, msg=name)


def test_the_loss_is_that_of_the_paper() -> None:
    """Lindsey et al., layer by layer: squared errors and decoder norms are both summed over layers."""
    spec = make_spec("standard_crosscoder")
    params, x_BD = make_params(spec), at_layers()
    encoders = params["W_enc"].reshape(N_LAYERS, LAYER, D_SAE)
    decoders = params["W_dec"].reshape(D_SAE, N_LAYERS, LAYER)
    biases = params["b_dec"].reshape(N_LAYERS, LAYER)
    layers = [x_BD[:, layer * LAYER : (layer + 1) * LAYER] for layer in range(N_LAYERS)]
    f_BF = torch.relu(sum(x @ W for x, W in zip(layers, encoders, strict=True)) + params["b_enc"])
    error, penalty = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for layer, x in enumerate(layers):
        error += ((f_BF @ decoders[:, layer] + biases[layer] - x) ** 2).sum() / BATCH
        penalty += (f_BF * decoders[:, layer].norm(dim=1)).sum() / BATCH
    losses = architecture_for(spec).forward(params, x_BD, KNOBS).losses
    assert losses["mse_loss"].item() == pytest.approx(error.item(), rel=1e-12)
    assert losses["l1_loss"].item() == pytest.approx(0.7 * penalty.item(), rel=1e-12)


def test_latents_are_selected_by_the_sum_of_their_decoders_norms() -> None:
    spec = make_spec("topk_crosscoder", k=1)
    params = make_params(spec)
    for name in ("W_enc", "W_dec", "b_enc"):
        params[name].zero_()
    params["b_enc"][:2] = 1.0
    params["W_dec"][0] = torch.tensor([1.0, 0, 0, 0] * N_LAYERS)  # norms 1 + 1 + 1, and sqrt(3) of all together
    params["W_dec"][1, 0] = 2.0  # norm 2 at one layer
    latents_BF = architecture_for(spec).encode(params, make_batch(), Knobs(k=1))
    assert torch.equal((latents_BF != 0).nonzero()[:, 1], torch.zeros(BATCH, dtype=torch.int64))


def test_each_layer_has_a_factor_of_its_own() -> None:
    normalizer = Normalizer.fit("expected_average_only_in", [at_layers()], D_IN, n_layers=N_LAYERS)
    scaled_BD = normalizer.apply(at_layers())
    for part in scaled_BD.chunk(N_LAYERS, dim=1):
        assert float(part.norm(dim=1).mean()) == pytest.approx(LAYER**0.5)
    torch.testing.assert_close(denormalized(normalizer, scaled_BD), at_layers())
    values, tensors = normalizer.state_dict()
    assert Normalizer.from_state_dict(json.loads(json.dumps(values)), tensors) == normalizer


@pytest.mark.parametrize("mode", ["none", "expected_average_only_in"])
@pytest.mark.parametrize("name", NAMES)
def test_the_exported_form_reconstructs_raw_activations_as_training_does(name: str, mode: str, tmp_path: Path) -> None:
    spec = make_spec(name, normalize_activations=mode, dtype="float64")
    architecture, params = architecture_for(spec), make_params(spec)
    x_BD = at_layers()
    normalizer = Normalizer.fit(spec.normalize_activations, [x_BD], D_IN, n_layers=N_LAYERS)
    scaled_BD = normalizer.apply(x_BD)
    threshold = None
    if architecture.needs_threshold:
        threshold = calibrate_threshold(lambda: [architecture.pre_acts_for_threshold(params, scaled_BD)], 5)
    exported = architecture.export(params, normalizer, threshold)
    trained = architecture.forward(params, scaled_BD, KNOBS)

    assert exported.architecture == spec.saved_as
    assert (exported.n_layers, exported.d_in, exported.d_out) == (N_LAYERS, D_IN, D_IN)
    assert torch.equal(exported.encode(x_BD) != 0, trained.feature_acts_BF != 0)
    recon_BD = denormalized(normalizer, trained.recon_BD)
    torch.testing.assert_close(exported(x_BD), recon_BD, rtol=1e-5, atol=1e-5)

    save_sae_folder(tmp_path, exported, sparsity_F=None)
    again = load_sae_folder(tmp_path)
    assert all(torch.equal(again.tensors[key], tensor) for key, tensor in exported.tensors.items())
    # Training that starts from it begins with the same reconstructions.
    start = pretrained_params(
        read_pretrained(str(tmp_path)), architecture, normalizer, architecture.init(torch.Generator())
    )
    begun = architecture.forward({k: t.double() for k, t in start.items()}, scaled_BD, KNOBS)
    torch.testing.assert_close(begun.recon_BD, trained.recon_BD, rtol=1e-4, atol=1e-4)


def test_the_folder_holds_matrices_by_layer(tmp_path: Path) -> None:
    spec = make_spec("topk_crosscoder")
    exported = architecture_for(spec).export(make_params(spec), Normalizer(mode="none"))
    save_sae_folder(tmp_path, exported, sparsity_F=None)
    stored = load_file(tmp_path / "sae_weights.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in stored.items()} == {
        "W_enc": (N_LAYERS, LAYER, D_SAE),
        "W_dec": (D_SAE, N_LAYERS, LAYER),
        "b_dec": (N_LAYERS, LAYER),
        "b_enc": (D_SAE,),
    }
    x_BD = make_batch(dtype=torch.float32)
    x_BLD = x_BD.reshape(BATCH, N_LAYERS, LAYER)
    hidden_BF = torch.einsum("bld,ldf->bf", x_BLD, stored["W_enc"]) + stored["b_enc"]
    torch.testing.assert_close(exported.encode(x_BD).max(1).values, hidden_BF.max(1).values.relu())
    recon_BLD = torch.einsum("bf,fld->bld", exported.encode(x_BD), stored["W_dec"]) + stored["b_dec"]
    torch.testing.assert_close(exported(x_BD), recon_BLD.flatten(1))


def test_a_folder_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    spec = make_spec("standard_crosscoder")
    exported = architecture_for(spec).export(make_params(spec), Normalizer(mode="none"))
    save_sae_folder(tmp_path, exported, sparsity_F=None)
    (tmp_path / "checksums.json").unlink()
    stored = load_file(tmp_path / "sae_weights.safetensors")
    save_file({**stored, "W_enc": stored["W_enc"].flatten(0, 1)}, tmp_path / "sae_weights.safetensors")
    with pytest.raises(UserError, match=r"tensor W_enc has shape \[12, 40\], but .* call for \[3, 4, 40\]"):
        load_sae_folder(tmp_path)
    cfg = json.loads((tmp_path / "cfg.json").read_text())
    (tmp_path / "cfg.json").write_text(json.dumps({**cfg, "n_layers": 5}))
    with pytest.raises(UserError, match="n_layers must divide d_in"):
        load_sae_folder(tmp_path)


def trained(spec: Any, x_BD: torch.Tensor) -> dict[str, torch.Tensor]:
    """Weights after 250 steps of Adam."""
    architecture, draw = architecture_for(spec), torch.Generator().manual_seed(0)
    params = {name: tensor.requires_grad_() for name, tensor in architecture.init(draw).items()}
    optimiser = torch.optim.Adam(params.values(), lr=3e-3)
    for _ in range(250):
        batch_BD = x_BD[torch.randint(len(x_BD), (256,), generator=draw)]
        optimiser.zero_grad()
        architecture.forward(params, batch_BD, Knobs(k=3)).loss.backward()
        optimiser.step()
    return {name: tensor.detach() for name, tensor in params.items()}


def test_features_that_layers_share_are_found_better_than_from_one_of_the_layers() -> None:
    """Three noisy views of the same 24 sparse features: a layer's directions, from all of them and from it alone."""
    draw = torch.Generator().manual_seed(3)
    features = torch.rand(8000, 24, generator=draw) * (torch.rand(8000, 24, generator=draw) < 1 / 8)
    true_LFD = torch.nn.functional.normalize(torch.randn(3, 24, 16, generator=draw), dim=-1)
    x_BLD = torch.einsum("bf,lfd->bld", features, true_LFD) + 0.15 * torch.randn(8000, 3, 16, generator=draw)

    def recovered(W_dec_FD: torch.Tensor) -> float:
        return float((torch.nn.functional.normalize(W_dec_FD, dim=-1) @ true_LFD[0].T).max(0).values.mean())

    own = trained(spec_class("topk")(d_in=16, d_sae=32, k=3), x_BLD[:, 0])
    shared = trained(spec_class("topk_crosscoder")(d_in=48, n_layers=3, d_sae=32, k=3), x_BLD.flatten(1))
    assert recovered(shared["W_dec"][:, :16]) > 0.98
    assert recovered(own["W_dec"]) < 0.94


@pytest.mark.parametrize("name", NAMES)
def test_the_spec_counts_the_weights_that_training_makes(name: str) -> None:
    spec = make_spec(name)
    made = architecture_for(spec).init(torch.Generator().manual_seed(0))
    assert spec.n_parameters() == sum(weight.numel() for weight in made.values())


def test_the_crosscoders_are_those_of_four_architectures() -> None:
    own = {str(spec.model_fields["architecture"].default) for spec in CROSSCODERS}
    assert {f"{name}_crosscoder" for name in own} == set(NAMES)
    assert own == {"standard", "jumprelu", "topk", "batchtopk"}
