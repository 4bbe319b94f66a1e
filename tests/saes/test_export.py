"""The invariant of export: on raw activations, the published SAE is the trained one on normalised activations."""

from typing import Any

import pytest
import torch

from saesweep.saes import ExportedSAE, Knobs, Normalizer, architecture_for, calibrate_threshold
from saesweep.specs.architectures import TopKFamilySpec, architectures, spec_class

from .plain_formulas import D_IN, D_SAE, denormalized, make_batch, make_params, make_spec

MODES = ["none", "expected_average_only_in", "layer_norm", "constant_norm_rescale", "covariance_whitening"]
ARCHITECTURES = [name for name in architectures() if not hasattr(spec_class(name), "trained_as")]
TOPK = {name for name in ARCHITECTURES if issubclass(spec_class(name), TopKFamilySpec)}
RESCALING = [*((name, True) for name in ARCHITECTURES), *((name, False) for name in ARCHITECTURES if name in TOPK)]
"""Every architecture, and those with `rescale_acts_by_decoder_norm` without it too."""


def raw_batch(dtype: torch.dtype = torch.float64, seed: int = 5) -> torch.Tensor:
    mixing_DD = torch.randn(D_IN, D_IN, generator=torch.Generator().manual_seed(6)).to(dtype)
    return make_batch(seed, dtype, rows=256) @ mixing_DD + 0.5


def export(architecture: str, mode: str = "none", dtype: torch.dtype = torch.float64, **options: Any) -> Any:
    if architecture == "matching_pursuit" and mode == "covariance_whitening":
        pytest.skip("refused: whitening cannot be folded where the encoder is the decoder")
    if architecture in TOPK and mode in ("layer_norm", "constant_norm_rescale"):
        options["aux_loss_coefficient"] = 0.0
    spec = make_spec(architecture, normalize_activations=mode, dtype=str(dtype).removeprefix("torch."), **options)
    implementation = architecture_for(spec)
    params = make_params(spec, dtype=dtype)
    x_BD = raw_batch(dtype)
    normalizer = Normalizer.fit(spec.normalize_activations, [x_BD], D_IN)
    threshold = None
    if implementation.needs_threshold:
        scaled_BD = normalizer.apply(x_BD)
        threshold = calibrate_threshold(lambda: [implementation.pre_acts_for_threshold(params, scaled_BD)], 5.0)
    return implementation, params, normalizer, implementation.export(params, normalizer, threshold), x_BD


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("architecture", "rescale"), RESCALING)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-9), (torch.float32, 1e-5)], ids=["f64", "f32"])
def test_invariant(
    architecture: str, mode: str, centred: bool, rescale: bool, dtype: torch.dtype, bound: float
) -> None:
    topk = architecture in TOPK
    options = {"rescale_acts_by_decoder_norm": rescale} if topk else {}
    implementation, params, normalizer, exported, x_BD = export(
        architecture, mode, dtype, apply_b_dec_to_input=centred, **options
    )
    trained = implementation.forward(params, normalizer.apply(x_BD), Knobs.from_spec(implementation.spec))
    acts_BF = exported.encode(x_BD)
    # The training form of batchtopk selects over this very batch; so does the threshold calibrated on it.
    assert torch.equal(acts_BF != 0, trained.feature_acts_BF != 0)
    carries_norm = (topk and rescale) or architecture == "matching_pursuit"
    scale = normalizer.scale if carries_norm and normalizer.scale is not None else 1.0
    expected_BF = trained.feature_acts_BF / scale
    assert float((acts_BF - expected_BF).abs().max() / expected_BF.abs().max()) <= bound
    recon_BD = denormalized(normalizer, trained.recon_BD)
    assert float((exported(x_BD) - recon_BD).abs().max() / recon_BD.abs().max()) <= bound
    assert torch.equal(exported(x_BD), exported.decode(acts_BF, like_ND=x_BD))


@pytest.mark.parametrize("architecture", ["batchtopk", "matryoshka_batchtopk"])
@pytest.mark.parametrize("mode", MODES)
def test_exported_l0_is_k_on_the_batches_it_was_calibrated_on(architecture: str, mode: str) -> None:
    """Trap 2: a running average of the threshold exports another SAE than the one trained."""
    _, _, _, exported, x_BD = export(architecture, mode)
    assert float((exported.encode(x_BD) > 0).sum(1).double().mean()) == 5.0


def test_the_exported_form_does_not_look_at_the_batch() -> None:
    """Trap 3: batch-level top-k reports an L0 that the exported threshold does not have."""
    implementation, params, _, exported, x_BD = export("batchtopk")
    together_BF = exported.encode(x_BD)
    alone_BF = torch.cat([exported.encode(row_BD) for row_BD in x_BD.split(1)])
    torch.testing.assert_close(alone_BF, together_BF, atol=1e-12, rtol=1e-12)
    in_batch = implementation.encode(params, x_BD) > 0
    by_token = torch.cat([implementation.encode(params, row_BD) > 0 for row_BD in x_BD.split(1)])
    assert not torch.equal(in_batch, by_token)  # the training form does look


def test_batchtopk_needs_a_threshold_and_others_take_none() -> None:
    for architecture in ("batchtopk", "matryoshka_batchtopk"):
        spec = make_spec(architecture)
        with pytest.raises(ValueError, match="calibrated threshold"):
            architecture_for(spec).export(make_params(spec), Normalizer(mode="none"), None)
    spec = make_spec("topk")
    with pytest.raises(ValueError, match="takes no threshold"):
        architecture_for(spec).export(make_params(spec), Normalizer(mode="none"), 0.3)
    with pytest.raises(TypeError, match="without a calibrated threshold"):
        architecture_for(spec).pre_acts_for_threshold(make_params(spec), make_batch())


def test_a_normalizer_of_another_mode_is_refused() -> None:
    spec = make_spec("standard", normalize_activations="expected_average_only_in")
    with pytest.raises(ValueError, match="normalizer of mode none"):
        architecture_for(spec).export(make_params(spec), Normalizer(mode="none"), None)


def test_weights_that_are_not_finite_are_not_exported() -> None:
    """Trap 8: a NaN batch must not end as a published SAE."""
    spec = make_spec("standard")
    params = make_params(spec)
    params["b_enc"][3] = float("nan")
    with pytest.raises(ValueError, match="b_enc"):
        architecture_for(spec).export(params, Normalizer(mode="none"), None)


@pytest.mark.parametrize("mode", ["layer_norm", "constant_norm_rescale"])
def test_runtime_normalisation_has_no_hidden_state(mode: str) -> None:
    _, _, _, exported, x_BD = export("standard", mode)
    acts_BF, expected_BD = exported.encode(x_BD), exported(x_BD)
    exported.encode(100 * x_BD[:7])  # must not disturb the decoding of the first batch
    assert torch.equal(exported.decode(acts_BF, like_ND=x_BD), expected_BD)
    with pytest.raises(ValueError, match="like_ND"):
        exported.decode(acts_BF)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_tensors_and_cfg(architecture: str) -> None:
    implementation, _, _, exported, _ = export(architecture, "expected_average_only_in", torch.float32)
    plain = {"W_enc", "b_enc"}
    own = {
        "gated": {"W_enc", "b_gate", "b_mag", "r_mag"},
        "jumprelu": plain | {"threshold"},
        "matching_pursuit": set[str](),
    }
    assert set(exported.tensors) == {"W_dec", "b_dec"} | own.get(exported.architecture, plain)
    assert all(tensor.is_contiguous() and tensor.dtype == torch.float32 for tensor in exported.tensors.values())
    saelens_keys = {
        "device", "normalize_activations", "reshape_activations", "dtype", "d_sae", "apply_b_dec_to_input", "metadata",
        "d_in", "architecture",
    }  # fmt: skip
    selecting = {"k", "rescale_acts_by_decoder_norm"}
    added = {
        "topk": selecting,
        "abstopk": selecting,
        "matching_pursuit": {"residual_threshold", "max_iterations", "stop_on_duplicate_support"},
    }
    assert set(exported.cfg) == saelens_keys | added.get(exported.architecture, set())
    assert exported.cfg["normalize_activations"] == "none"
    assert exported.metadata["sae_lens_version"] == "6.54.12"
    # The recipe by which a cfg.json becomes a training configuration again
    details = exported.metadata["training_architecture_details"]
    again = {**exported.cfg, **details, "architecture": exported.metadata["training_architecture"]}
    del again["metadata"]
    assert type(implementation.spec)(**again) == implementation.spec


def test_threshold_is_float32_in_a_bfloat16_export() -> None:
    implementation, params, normalizer, _, x_BD = export("batchtopk", dtype=torch.float32)
    half = architecture_for(implementation.spec.model_copy(update={"dtype": "bfloat16"}))
    exported = half.export(params, normalizer, 0.4)
    assert exported.tensors["threshold"].dtype == torch.float32
    assert exported.tensors["W_enc"].dtype == torch.bfloat16
    assert exported(x_BD).dtype == torch.bfloat16


def test_with_metadata_and_to_leave_the_original_alone() -> None:
    _, _, _, exported, x_BD = export("jumprelu")
    named = exported.with_metadata({"hook_name": "model.layers.2"})
    assert named.metadata["hook_name"] == "model.layers.2"
    assert named.metadata["training_architecture"] == "jumprelu"
    assert "hook_name" not in exported.metadata
    single = exported.to(dtype=torch.float32)
    assert (single.cfg["dtype"], exported.cfg["dtype"]) == ("float32", "float64")
    assert single(x_BD).dtype == torch.float32
    assert (single.d_in, single.d_sae) == (D_IN, D_SAE)


def test_leading_dimensions_pass_through() -> None:
    for architecture in ARCHITECTURES:
        _, _, _, exported, x_BD = export(architecture, "constant_norm_rescale")
        torch.testing.assert_close(exported(x_BD.reshape(4, 64, D_IN)), exported(x_BD).reshape(4, 64, D_IN))
        torch.testing.assert_close(exported(x_BD[3]), exported(x_BD)[3])
        assert exported(x_BD[:0]).shape == (0, D_IN)


def test_an_exported_sae_that_contradicts_itself_is_a_bug() -> None:
    _, _, _, exported, _ = export("topk")
    for change, message in [
        ({"k": 0}, "k must be"),
        ({"architecture": "gated"}, "architecture"),
        ({"d_in": 3}, "shape"),
    ]:
        with pytest.raises(ValueError, match=message):
            ExportedSAE("topk", {**exported.cfg, **change}, exported.tensors)
