"""Starting from trained weights: the new SAE computes what the old one did, before its first step."""

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
    pretrained_params,
    read_pretrained,
    save_sae_folder,
)

from .plain_formulas import D_IN, D_SAE, denormalized, make_params, make_spec
from .test_export import ARCHITECTURES, MODES, RESCALING, TOPK, export, raw_batch

CLOSE = {"rtol": 1e-9, "atol": 1e-9}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("architecture", "rescale"), RESCALING)
def test_an_export_is_where_training_left_it(architecture: str, rescale: bool, mode: str, tmp_path: Path) -> None:
    options = {"rescale_acts_by_decoder_norm": rescale} if "topk" in architecture else {}
    implementation, params, normalizer, exported, x_BD = export(architecture, mode, **options)
    save_sae_folder(tmp_path / "sae", exported, sparsity_F=None)
    again = pretrained_params(
        read_pretrained(str(tmp_path / "sae")), implementation, normalizer, {k: t.clone() for k, t in params.items()}
    )
    scaled_BD, knobs = normalizer.apply(x_BD), Knobs.from_spec(implementation.spec)
    before = implementation.forward(params, scaled_BD, knobs)
    after = implementation.forward(again, scaled_BD, knobs)
    assert torch.equal(after.feature_acts_BF > 0, before.feature_acts_BF > 0)
    torch.testing.assert_close(after.recon_BD, before.recon_BD, **CLOSE)


def test_the_layout_of_fresh_parameters_is_kept(tmp_path: Path) -> None:
    implementation, _, normalizer, exported, _ = export("topk")
    save_sae_folder(tmp_path / "sae", exported, sparsity_F=None)
    like = implementation.init(torch.Generator())
    again = pretrained_params(read_pretrained(str(tmp_path / "sae")), implementation, normalizer, like)
    assert again["W_enc"].stride() == like["W_enc"].stride()
    assert again["W_enc"].dtype == torch.float32


@pytest.mark.parametrize("centred", [True, False])
def test_another_centring_is_moved_into_the_biases(centred: bool, tmp_path: Path) -> None:
    for architecture in ("standard", "gated"):
        implementation, params, normalizer, exported, x_BD = export(architecture, apply_b_dec_to_input=centred)
        save_sae_folder(tmp_path / architecture, exported, sparsity_F=None)
        other = architecture_for(make_spec(architecture, apply_b_dec_to_input=not centred, dtype="float64"))
        again = pretrained_params(read_pretrained(str(tmp_path / architecture)), other, normalizer, params)
        knobs = Knobs()
        torch.testing.assert_close(
            other.forward(again, x_BD, knobs).recon_BD, implementation.forward(params, x_BD, knobs).recon_BD, **CLOSE
        )


def saelens_checkpoint(folder: Path, architecture: str, mode: str) -> Any:
    """A mid-run checkpoint as SAELens writes it: unfolded weights, the scaler beside them, batchtopk's threshold buffer."""
    implementation, params, normalizer, _, x_BD = export(architecture, mode)
    folder.mkdir()
    cfg = implementation.spec.model_dump(mode="json") | {"architecture": architecture, "metadata": {}}
    (folder / "cfg.json").write_text(json.dumps(cfg))
    buffers = {"topk_threshold": torch.zeros((), dtype=torch.float64)} if "batchtopk" in architecture else {}
    save_file({name: t.contiguous() for name, t in params.items()} | buffers, folder / "sae_weights.safetensors")
    scaler = {"scaling_factor": normalizer.scale, "has_whitening": normalizer.whitening is not None}
    (folder / "activation_scaler.json").write_text(json.dumps(scaler))
    if normalizer.whitening is not None:
        w = normalizer.whitening
        tensors = {"mean": w.mean_D, "matrix": w.matrix_DD, "inverse_matrix": w.inverse_DD}
        save_file({name: t.contiguous() for name, t in tensors.items()}, folder / "activation_whitening.safetensors")
    return implementation, params, normalizer, x_BD


@pytest.mark.parametrize("mode", ["none", "expected_average_only_in", "covariance_whitening"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_saelens_checkpoint_under_another_estimate_of_the_scale(architecture: str, mode: str, tmp_path: Path) -> None:
    implementation, params, old, x_BD = saelens_checkpoint(tmp_path / "64", architecture, mode)
    new = Normalizer.fit(mode, [1.1 * raw_batch(seed=9) + 0.2], D_IN)
    again = pretrained_params(read_pretrained(str(tmp_path / "64")), implementation, new, params)
    knobs = Knobs.from_spec(implementation.spec)
    before = denormalized(old, implementation.forward(params, old.apply(x_BD), knobs).recon_BD)
    after = denormalized(new, implementation.forward(again, new.apply(x_BD), knobs).recon_BD)
    if mode != "covariance_whitening" or architecture not in TOPK:  # selection by decoder norm depends on the space
        torch.testing.assert_close(after, before, rtol=1e-8, atol=1e-8)


def test_an_exported_batchtopk_starts_a_jumprelu_with_its_threshold(tmp_path: Path) -> None:
    _, _, normalizer, exported, x_BD = export("batchtopk", "expected_average_only_in")
    save_sae_folder(tmp_path / "sae", exported, sparsity_F=None)
    spec = make_spec("jumprelu", normalize_activations="expected_average_only_in", dtype="float64")
    implementation = architecture_for(spec)
    again = pretrained_params(read_pretrained(str(tmp_path / "sae")), implementation, normalizer, make_params(spec))
    latents_BF = implementation.encode(again, normalizer.apply(x_BD))
    torch.testing.assert_close(latents_BF, exported.encode(x_BD), rtol=1e-6, atol=1e-6)  # the threshold is float32


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    exported = export("standard")[3]
    folder = tmp_path / "sae"
    save_sae_folder(folder, exported, sparsity_F=None)

    def start(architecture: str, **options: Any) -> None:
        spec = make_spec(architecture, **options)
        like = architecture_for(spec).init(torch.Generator())
        mode = spec.normalize_activations
        pretrained_params(read_pretrained(str(folder)), architecture_for(spec), Normalizer(mode=mode), like)

    start("topk")
    with pytest.raises(UserError, match="has no b_gate, which gated needs"):
        start("gated")
    with pytest.raises(UserError, match="has no threshold, which jumprelu needs"):
        start("jumprelu")
    with pytest.raises(UserError, match="must be the same"):
        start("standard", normalize_activations="layer_norm")
    weights = load_file(folder / "sae_weights.safetensors")
    (folder / "activation_scaler.json").write_text("{}")
    save_file(weights | {"b_enc": torch.full((D_SAE,), torch.inf)}, folder / "sae_weights.safetensors")
    with pytest.raises(UserError, match="NaN or infinite values in b_enc"):
        start("standard")
    save_file(weights | {"b_enc": torch.zeros(3)}, folder / "sae_weights.safetensors")
    with pytest.raises(UserError, match=r"b_enc has shape \[3\]"):
        start("standard")
    with pytest.raises(UserError, match="neither a folder here"):
        read_pretrained(str(tmp_path / "nothing"))
