"""The fused step against torch.optim.Adam and clip_grad_norm_."""

from __future__ import annotations

import pytest
import torch

from saesweep.cohort.optimizer import adam_step_

D, F = 12, 40


def make(dtype: torch.dtype, device: str, seed: int = 0) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    rand = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64).to(device=device, dtype=dtype)  # noqa: E731
    return {"W_enc": rand(F, D).t(), "W_dec": rand(F, D), "b_enc": rand(F), "b_dec": rand(D)}


def like(params: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: torch.zeros_like(p) for name, p in params.items()}


def devices() -> list[object]:
    return ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize(("dtype", "tol"), [(torch.float32, 2e-6), (torch.float64, 1e-14)])
@pytest.mark.parametrize("size", [1e-3, 10.0], ids=["below the clip", "clipped"])
def test_equals_torch_adam_after_clipping(dtype: torch.dtype, tol: float, size: float, device: str) -> None:
    params = make(dtype, device)
    theirs = {name: p.clone(memory_format=torch.contiguous_format) for name, p in params.items()}
    leaves = [t.requires_grad_() for t in theirs.values()]
    adam = torch.optim.Adam(leaves, lr=1.0, betas=(0.8, 0.95), foreach=False)
    m, v = like(params), like(params)
    for step in range(1, 6):
        lr = 1e-2 / step
        grads = {name: size * g for name, g in make(dtype, device, seed=step).items()}
        for leaf, grad in zip(leaves, grads.values(), strict=True):
            leaf.grad = grad.clone()
        expected_norm = torch.nn.utils.clip_grad_norm_(leaves, 1.0)
        adam.param_groups[0]["lr"] = lr
        adam.step()
        norm = adam_step_(params, m, v, grads, step=step, lr=lr, beta1=0.8, beta2=0.95)
        torch.testing.assert_close(norm, expected_norm.detach(), rtol=tol, atol=0.0)
    for name, leaf in theirs.items():
        torch.testing.assert_close(params[name], leaf.detach(), rtol=tol, atol=tol)


def test_clip_is_over_all_parameters_of_one_sae() -> None:
    params = make(torch.float64, "cpu")
    grads = {name: torch.ones_like(p) for name, p in params.items()}
    count = sum(g.numel() for g in grads.values())
    norm = adam_step_(params, like(params), like(params), grads, step=1, lr=0.1, beta1=0.0, beta2=0.0, max_grad_norm=2)
    assert norm.item() == pytest.approx(count**0.5)
    # Without decay the first step is lr * g / (|g| + eps): the clipped size shows through a large eps alone.
    before = make(torch.float64, "cpu")
    m, v = like(before), like(before)
    adam_step_(
        before,
        m,
        v,
        {n: torch.ones_like(p) for n, p in before.items()},
        step=1,
        lr=0.1,
        beta1=0.5,
        beta2=0.5,
        max_grad_norm=2,
    )
    torch.testing.assert_close(m["b_dec"], torch.full((D,), 0.5 * 2 / (count**0.5 + 1e-6), dtype=torch.float64))


def test_layout_of_the_parameters_survives() -> None:
    params = make(torch.float32, "cpu")
    adam_step_(params, like(params), like(params), make(torch.float32, "cpu", 3), step=1, lr=0.1, beta1=0.9, beta2=0.9)
    assert params["W_enc"].t().is_contiguous()
    assert params["W_enc"].shape == (D, F)


def test_a_gradient_of_another_layout_is_taken_by_value() -> None:
    a, b = make(torch.float32, "cpu"), make(torch.float32, "cpu")
    grads = make(torch.float32, "cpu", 5)
    adam_step_(a, like(a), like(a), {n: g.clone() for n, g in grads.items()}, step=1, lr=0.1, beta1=0.9, beta2=0.9)
    grads["W_enc"] = grads["W_enc"].contiguous()
    adam_step_(b, like(b), like(b), grads, step=1, lr=0.1, beta1=0.9, beta2=0.9)
    assert torch.equal(a["W_enc"], b["W_enc"])


def test_a_moment_of_another_layout_is_refused() -> None:
    params = make(torch.float32, "cpu")
    bad = like(params) | {"W_enc": torch.zeros(D, F)}
    with pytest.raises(ValueError, match="moment of W_enc"):
        adam_step_(params, bad, like(params), make(torch.float32, "cpu"), step=1, lr=0.1, beta1=0.9, beta2=0.9)


def test_steps_count_from_one() -> None:
    params = make(torch.float32, "cpu")
    with pytest.raises(ValueError, match="counts from 1"):
        adam_step_(params, like(params), like(params), like(params), step=0, lr=0.1, beta1=0.9, beta2=0.9)
