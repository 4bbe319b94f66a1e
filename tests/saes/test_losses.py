"""Losses and gradients of every architecture against plain formulas in float64 autograd."""

from typing import Any

import pytest
import torch

from saesweep.errors import UserError
from saesweep.saes import Architecture, Knobs, architecture_for

from .plain_formulas import D_IN, D_SAE, make_batch, make_dead, make_params, make_spec, plain_losses

KNOBS = Knobs(l1_coefficient=0.7, l0_coefficient=0.3, k=5)
TANH = {"jumprelu_sparsity_loss_mode": "tanh"}
QUADRATIC = {"jumprelu_sparsity_loss_mode": "quadratic", "target_l0": 9.0}
WIDE = {"jumprelu_bandwidth": 0.6}  # wide enough for many items to lie in the window
NO_AUX = {"aux_loss_coefficient": 0.0}
BY_LEVEL = {"use_matryoshka_aux_loss": True}
TEMPORAL = {"temporal_coefficient": 0.3}

CASES: list[tuple[str, dict[str, Any]]] = [
    ("standard", {}),
    ("standard", {"lp_norm": 2.0}),
    ("standard", {"lp_norm": 0.5, "sparsity_function": "Lp^p"}),
    ("standard", {"apply_b_dec_to_input": False}),
    ("standard", {"normalize_activations": "layer_norm"}),
    ("gated", {}),
    ("gated", {"apply_b_dec_to_input": False}),
    ("gated", {"detach_aux_decoder": True}),
    ("gated", {"normalize_activations": "layer_norm"}),
    ("jumprelu", WIDE),
    ("jumprelu", WIDE | {"jumprelu_ste_to_input": True, "pre_act_loss_coefficient": 0.2}),
    ("jumprelu", WIDE | TANH | {"jumprelu_ste_to_input": True, "pre_act_loss_coefficient": 0.2}),
    ("jumprelu", WIDE | TANH | {"normalize_activations": "constant_norm_rescale", "pre_act_loss_coefficient": 0.2}),
    ("jumprelu", WIDE | QUADRATIC),
    ("jumprelu", WIDE | QUADRATIC | {"jumprelu_frequency_scale": 0.1}),
    ("jumprelu", WIDE | TANH | {"jumprelu_frequency_scale": 0.3, "jumprelu_ste_to_input": True}),
    ("jumprelu", WIDE | QUADRATIC | {"jumprelu_ste_to_input": True, "apply_b_dec_to_input": False}),
    ("topk", {}),
    ("topk", {"rescale_acts_by_decoder_norm": False, "aux_loss_coefficient": 0.1}),
    ("topk", {"apply_b_dec_to_input": False}),
    ("topk", NO_AUX | {"normalize_activations": "layer_norm"}),
    ("batchtopk", {}),
    ("batchtopk", {"rescale_acts_by_decoder_norm": False}),
    ("batchtopk", NO_AUX | {"normalize_activations": "constant_norm_rescale"}),
    ("matryoshka_batchtopk", {}),
    ("matryoshka_batchtopk", BY_LEVEL),
    ("matryoshka_batchtopk", TEMPORAL),
    ("matryoshka_batchtopk", TEMPORAL | {"rescale_acts_by_decoder_norm": False, "matryoshka_widths": (40,)}),
    ("matryoshka_batchtopk", BY_LEVEL | {"rescale_acts_by_decoder_norm": False}),
    ("matryoshka_batchtopk", NO_AUX | {"normalize_activations": "layer_norm"}),
    ("abstopk", {}),
    ("abstopk", {"rescale_acts_by_decoder_norm": False, "aux_loss_coefficient": 0.1}),
    ("abstopk", {"apply_b_dec_to_input": False}),
    ("abstopk", NO_AUX | {"normalize_activations": "layer_norm"}),
    ("multi_k", {}),
    ("multi_k", {"rescale_acts_by_decoder_norm": False, "aux_loss_coefficient": 0.1}),
    ("multi_k", NO_AUX | {"normalize_activations": "constant_norm_rescale", "apply_b_dec_to_input": False}),
    ("matching_pursuit", {}),
    ("matching_pursuit", {"max_iterations": None, "stop_on_duplicate_support": False, "residual_threshold": 1.5}),
    ("matching_pursuit", {"max_iterations": 20, "residual_threshold": 0.0}),
    ("matching_pursuit", {"apply_b_dec_to_input": False, "normalize_activations": "layer_norm"}),
]
IDS = ["-".join([name, *(f"{k}={v}" for k, v in options.items())]) for name, options in CASES]


def gradients(loss: torch.Tensor, params: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    found = torch.autograd.grad(loss, list(params.values()), allow_unused=True, retain_graph=True)
    return {k: g if g is not None else torch.zeros_like(p) for (k, p), g in zip(params.items(), found, strict=True)}


def leaves(params: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone().requires_grad_() for name, tensor in params.items()}


@pytest.mark.parametrize("dead_share", [0.0, 0.1, 0.6])  # none; fewer than d_in // 2: scaled down; more
@pytest.mark.parametrize(("architecture", "options"), CASES, ids=IDS)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-9), (torch.float32, 1e-5)], ids=["f64", "f32"])
def test_losses_and_gradients_equal_plain_formulas(
    architecture: str, options: dict[str, Any], dead_share: float, dtype: torch.dtype, bound: float
) -> None:
    spec, dead_F = make_spec(architecture, **options), make_dead(dead_share)
    ours, plain = leaves(make_params(spec, dtype=dtype)), leaves(make_params(spec))
    output = architecture_for(spec).forward(ours, make_batch(dtype=dtype), KNOBS, dead_F)
    expected = plain_losses(spec, plain, make_batch(), KNOBS, dead_F)

    assert set(output.losses) == set(expected)
    for name, value in expected.items():
        assert output.losses[name].item() == pytest.approx(value.item(), rel=bound, abs=bound), name
    assert output.loss.item() == pytest.approx(sum(value.item() for value in expected.values()), rel=bound)
    by_plain = gradients(torch.stack(list(expected.values())).sum(), plain)
    for name, grad in gradients(output.loss, ours).items():
        scale = max(float(by_plain[name].abs().max()), 1e-12)
        assert float((grad.double() - by_plain[name]).abs().max()) / scale <= bound, name


# Trap 1: which parameters each loss term alone must move. What is not listed must get no gradient at all.
STEP_TO_INPUT = WIDE | {"jumprelu_ste_to_input": True}
ENCODER = {"W_enc", "b_enc", "b_dec"}
MUST_MOVE: list[tuple[str, dict[str, Any], str, set[str]]] = [
    ("standard", {}, "mse_loss", ENCODER | {"W_dec"}),
    ("standard", {}, "l1_loss", ENCODER | {"W_dec"}),
    ("gated", {}, "mse_loss", {"W_enc", "r_mag", "b_mag", "W_dec", "b_dec"}),
    ("gated", {}, "l1_loss", {"W_enc", "b_gate", "W_dec", "b_dec"}),
    ("gated", {}, "auxiliary_reconstruction_loss", {"W_enc", "b_gate", "W_dec", "b_dec"}),
    ("gated", {"detach_aux_decoder": True}, "auxiliary_reconstruction_loss", {"W_enc", "b_gate", "b_dec"}),
    ("jumprelu", WIDE, "mse_loss", ENCODER | {"W_dec", "threshold"}),
    ("jumprelu", WIDE, "l0_loss", {"threshold"}),
    ("jumprelu", STEP_TO_INPUT, "l0_loss", ENCODER | {"threshold"}),
    ("jumprelu", WIDE | TANH, "l0_loss", ENCODER | {"W_dec", "threshold"}),
    ("jumprelu", WIDE | QUADRATIC, "l0_loss", {"threshold"}),
    ("jumprelu", {"pre_act_loss_coefficient": 0.1}, "pre_act_loss", ENCODER | {"W_dec", "threshold"}),
    ("topk", {}, "mse_loss", ENCODER | {"W_dec"}),
    ("topk", {}, "auxiliary_reconstruction_loss", ENCODER | {"W_dec"}),
    ("batchtopk", {}, "auxiliary_reconstruction_loss", ENCODER | {"W_dec"}),
    ("matryoshka_batchtopk", {}, "inner_mse_loss_6", ENCODER | {"W_dec"}),
    ("matryoshka_batchtopk", BY_LEVEL, "auxiliary_reconstruction_loss", ENCODER | {"W_dec"}),
    ("matryoshka_batchtopk", TEMPORAL, "temporal_loss", ENCODER | {"W_dec"}),  # by the norms that latents carry
    ("abstopk", {}, "auxiliary_reconstruction_loss", ENCODER | {"W_dec"}),
    ("multi_k", {}, "mse_loss", ENCODER | {"W_dec"}),
    ("matching_pursuit", {}, "mse_loss", {"W_dec", "b_dec"}),
    ("matching_pursuit", {"apply_b_dec_to_input": False}, "mse_loss", {"W_dec"}),
]


@pytest.mark.parametrize(("architecture", "options", "term", "moved"), MUST_MOVE)
def test_every_loss_term_reaches_the_parameters_it_must_move(
    architecture: str, options: dict[str, Any], term: str, moved: set[str]
) -> None:
    spec = make_spec(architecture, **options)
    params = leaves(make_params(spec))
    output = architecture_for(spec).forward(params, make_batch(), KNOBS, make_dead(0.5))
    reached = {name for name, grad in gradients(output.losses[term], params).items() if bool(grad.any())}
    assert reached == moved


def test_the_losses_on_dead_latents_move_dead_latents_alone() -> None:
    dead_F = make_dead(0.3)
    for architecture, options, term in [
        ("topk", {}, "auxiliary_reconstruction_loss"),
        ("abstopk", {}, "auxiliary_reconstruction_loss"),
        ("jumprelu", {"pre_act_loss_coefficient": 1.0}, "pre_act_loss"),
    ]:
        spec = make_spec(architecture, **options)
        params = leaves(make_params(spec))
        output = architecture_for(spec).forward(params, make_batch(), KNOBS, dead_F)
        moved_F = gradients(output.losses[term], params)["b_enc"] != 0
        assert bool(moved_F.any())
        assert not bool((moved_F & ~dead_F).any())


@pytest.mark.parametrize("architecture", ["topk", "batchtopk", "matryoshka_batchtopk", "abstopk", "multi_k"])
def test_without_dead_latents_the_aux_loss_is_zero(architecture: str) -> None:
    spec = make_spec(architecture)
    implementation: Architecture[Any] = architecture_for(spec)
    for dead_F in (None, torch.zeros(D_SAE, dtype=torch.bool)):
        output = implementation.forward(make_params(spec), make_batch(), KNOBS, dead_F)
        assert float(output.losses["auxiliary_reconstruction_loss"]) == 0


def test_topk_keeps_k_per_token_and_batchtopk_k_on_average() -> None:
    x_BD = make_batch()
    topk, batchtopk = make_spec("topk"), make_spec("batchtopk")
    per_token = (architecture_for(topk).encode(make_params(topk), x_BD) > 0).sum(1)
    assert int(per_token.max()) == 5
    acts_BF = architecture_for(batchtopk).encode(make_params(batchtopk), x_BD, Knobs(k=4.3))
    assert int((acts_BF > 0).sum()) == int(4.3 * x_BD.shape[0])
    assert len(set((acts_BF > 0).sum(1).tolist())) > 1  # uneven over tokens: that is the point of it


def test_matryoshka_levels_are_added_not_averaged() -> None:
    """Trap 10: another level must change neither the other terms nor their weights."""
    x_BD, totals = make_batch(), []
    for widths in [(16,), (6, 16)]:
        spec = make_spec("matryoshka_batchtopk", matryoshka_widths=widths)
        output = architecture_for(spec).forward(make_params(spec), x_BD, KNOBS)
        totals.append((output, float(output.loss)))
    (few, few_total), (many, many_total) = totals
    for name, value in few.losses.items():
        assert float(many.losses[name]) == pytest.approx(float(value), rel=1e-12)
    assert many_total - few_total == pytest.approx(float(many.losses["inner_mse_loss_6"]), rel=1e-9)


@pytest.mark.parametrize("mode", ["layer_norm", "constant_norm_rescale"])
@pytest.mark.parametrize("architecture", ["topk", "batchtopk", "matryoshka_batchtopk", "abstopk", "multi_k"])
def test_aux_loss_with_runtime_normalisation_is_refused_before_training(architecture: str, mode: str) -> None:
    """Trap 5: elsewhere this raises when the first latent dies, in the middle of a run."""
    with pytest.raises(UserError, match="auxiliary loss"):
        architecture_for(make_spec(architecture, normalize_activations=mode))
    allowed = make_spec(architecture, normalize_activations=mode, aux_loss_coefficient=0.0)
    output = architecture_for(allowed).forward(make_params(allowed), make_batch(), KNOBS, make_dead(0.5))
    assert bool(torch.isfinite(output.loss))


def test_an_all_zero_token_stays_finite_under_constant_norm() -> None:
    spec = make_spec("standard", normalize_activations="constant_norm_rescale")
    x_BD = make_batch()
    x_BD[3] = 0
    params = leaves(make_params(spec))
    output = architecture_for(spec).forward(params, x_BD, KNOBS)
    assert all(bool(torch.isfinite(grad).all()) for grad in gradients(output.loss, params).values())


def test_a_spec_without_widths_is_a_bug() -> None:
    spec = make_spec("standard").model_copy(update={"d_in": None})
    with pytest.raises(ValueError, match="resolve_widths"):
        architecture_for(spec)


def test_bfloat16_batches_train_in_the_type_of_the_weights() -> None:
    spec = make_spec("standard")
    output = architecture_for(spec).forward(
        make_params(spec, dtype=torch.float32), make_batch(dtype=torch.bfloat16), KNOBS
    )
    assert output.recon_BD.dtype == torch.float32
    assert output.recon_BD.shape == (64, D_IN)


@pytest.mark.parametrize(("architecture", "options"), CASES, ids=IDS)
def test_autocast_with_float32_weights_stays_close(architecture: str, options: dict[str, Any]) -> None:
    spec = make_spec(architecture, **options)
    implementation, params = architecture_for(spec), leaves(make_params(spec, dtype=torch.float32))
    x_BD, dead_F = make_batch(dtype=torch.float32), make_dead(0.5)
    full = implementation.forward(params, x_BD, KNOBS, dead_F)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = implementation.forward(params, x_BD, KNOBS, dead_F)
    assert mixed.loss.dtype == torch.float32
    assert mixed.loss.item() == pytest.approx(full.loss.item(), rel=0.03)
    assert all(grad.dtype == torch.float32 for grad in gradients(mixed.loss, params).values())
