"""The straight-through estimator, item by item against its finite-window formulas; and the threshold itself."""

import pytest
import torch

from saesweep.saes import Knobs, architecture_for
from saesweep.saes.jumprelu import JumpReLU, Step

from .plain_formulas import make_batch, make_params, make_spec

EPS = 0.2
# One latent, threshold 0.5, window (0.4, 0.6): below, in below the jump, in above it, above
HIDDEN = [0.3, 0.45, 0.55, 0.9]
THRESHOLD = 0.5
UPSTREAM = [1.0, 2.0, 4.0, 8.0]


def _run(function: type, to_input: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    hidden_BF = torch.tensor(HIDDEN, dtype=torch.float64).unsqueeze(1).requires_grad_()
    threshold_F = torch.tensor([THRESHOLD], dtype=torch.float64, requires_grad=True)
    out_BF = function.apply(hidden_BF, threshold_F, EPS, to_input)
    out_BF.backward(torch.tensor(UPSTREAM, dtype=torch.float64).unsqueeze(1))
    assert threshold_F.grad is not None
    return out_BF.detach().squeeze(1), threshold_F.grad, None if hidden_BF.grad is None else hidden_BF.grad.squeeze(1)


@pytest.mark.parametrize("to_input", [False, True])
def test_step_sees_both_sides_of_the_window(to_input: bool) -> None:
    """Trap 9: fed with activations that have jumped already, only the upper half of the window would count."""
    out, threshold_grad, hidden_grad = _run(Step, to_input)
    assert out.tolist() == [0, 0, 1, 1]
    assert threshold_grad.tolist() == pytest.approx([-(2.0 + 4.0) / EPS])
    if to_input:
        assert hidden_grad is not None
        assert hidden_grad.tolist() == pytest.approx([0, 2.0 / EPS, 4.0 / EPS, 0])
    else:
        assert hidden_grad is None


@pytest.mark.parametrize("to_input", [False, True])
def test_jumprelu_gradients(to_input: bool) -> None:
    out, threshold_grad, hidden_grad = _run(JumpReLU, to_input)
    assert out.tolist() == pytest.approx([0, 0, 0.55, 0.9])
    assert threshold_grad.tolist() == pytest.approx([-THRESHOLD * (2.0 + 4.0) / EPS])
    assert hidden_grad is not None
    estimate = THRESHOLD / EPS if to_input else 0.0
    assert hidden_grad.tolist() == pytest.approx([0, 2.0 * estimate, 4.0 + 4.0 * estimate, 8.0])


def test_threshold_stays_float32_and_learns_in_a_bfloat16_sae() -> None:
    """Trap 4: steps of Adam's size on a threshold of 0.1 are rounded away in bf16."""
    spec = make_spec("jumprelu", jumprelu_init_threshold=0.1, jumprelu_bandwidth=2.0)
    implementation = architecture_for(spec)
    params = implementation.init(torch.Generator().manual_seed(0), dtype=torch.bfloat16)
    assert params["W_enc"].dtype == torch.bfloat16
    threshold_F = params["threshold"].requires_grad_()
    assert threshold_F.dtype == torch.float32
    before_F = threshold_F.detach().clone()
    optimizer = torch.optim.Adam([threshold_F], lr=1e-5)
    implementation.forward(params, make_batch(dtype=torch.bfloat16), Knobs(l0_coefficient=1.0)).loss.backward()
    optimizer.step()
    assert bool((threshold_F != before_F).all())


def test_constrain_projects_thresholds_and_nothing_else() -> None:
    spec = make_spec("jumprelu")
    params = make_params(spec)
    params["threshold"][::2] = -0.3
    before = {name: tensor.clone() for name, tensor in params.items()}
    architecture_for(spec).constrain_(params)
    assert params["threshold"][::2].tolist() == [0.0] * 20
    assert torch.equal(params["threshold"][1::2], before["threshold"][1::2])
    assert all(torch.equal(params[name], before[name]) for name in params if name != "threshold")


def test_step_mode_penalises_l0_and_quadratic_its_distance_from_the_target() -> None:
    x_BD = make_batch()
    spec = make_spec("jumprelu")
    params = make_params(spec)
    l0_B = (architecture_for(spec).encode(params, x_BD) > 0).sum(1).double()
    knobs = Knobs(l0_coefficient=0.5)
    step = architecture_for(spec).forward(params, x_BD, knobs)
    assert float(step.losses["l0_loss"]) == pytest.approx(0.5 * float(l0_B.mean()))
    quadratic = architecture_for(make_spec("jumprelu", jumprelu_sparsity_loss_mode="quadratic", target_l0=9.0))
    expected = 0.5 * float(((l0_B - 9) ** 2 * 2 / 9).mean())
    assert float(quadratic.forward(params, x_BD, knobs).losses["l0_loss"]) == pytest.approx(expected)
