"""Every architecture, option and path of the sparse engine against autograd through the reference."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch
from kernel_cases import CASES, Case, batch, dead_mask, params_for

from saesweep.cohort.engine import ReferenceEngine, StepGradients
from saesweep.cohort.kernels import KernelChoice, SparseEngine, jumprelu
from saesweep.cohort.kernels.pairs import PairKernels
from saesweep.cohort.kernels.scratch import Accumulator

PATHS = {
    "sparse": KernelChoice(dense_above=1.0, chunk_elements=96 * 32),
    "dense": KernelChoice(dense_above=0.0, chunk_elements=96 * 32),
}
PENALISED = ("standard", "gated", "jumprelu")


def both(
    case: Case, choice: KernelChoice, dtype: torch.dtype, *, bias: float = 0.0, device: str = "cpu"
) -> tuple[StepGradients, StepGradients]:
    architecture = case.build()
    params, x = params_for(architecture, dtype, bias=bias, device=device), batch(dtype, device=device)
    dead = dead_mask(device=device) if case.dead else None
    engine = SparseEngine(choice)
    assert engine.supports(architecture) is None
    before = {name: p.clone() for name, p in params.items()}
    got = engine.step(architecture, params, x, case.knobs, dead, case.target(x))
    assert all(torch.equal(params[name], p) for name, p in before.items()), "the step changed the weights"
    want = ReferenceEngine().step(
        architecture,
        {name: p.double() for name, p in params.items()},
        x.double(),
        case.knobs,
        dead,
        case.target(x.double()),
    )
    return got, want


def assert_equal(got: StepGradients, want: StepGradients, tol: float) -> None:
    assert got.losses.keys() == want.losses.keys()
    for name, term in want.losses.items():
        torch.testing.assert_close(
            got.losses[name].double(), term, rtol=tol, atol=tol, msg=lambda m, n=name: f"{n}: {m}"
        )
    torch.testing.assert_close(got.loss.double(), want.loss, rtol=tol, atol=tol)
    assert list(got.grads) == list(want.grads)
    for name, grad in want.grads.items():
        found = got.grads[name]
        assert found.shape == grad.shape
        size = grad.abs().max().clamp(min=1e-30)
        error = ((found.double() - grad).abs().max() / size).item()
        assert error <= tol, f"gradient of {name}: relative error {error:.2e}"
    assert got.firing_F.dtype == torch.int64
    assert torch.equal(got.firing_F, want.firing_F)


def sparse_and_dense() -> list[object]:
    return [
        pytest.param(case, path, id=f"{case.name} {path}")
        for case in CASES
        for path in PATHS
        if path == "sparse" or case.kind in PENALISED
    ]


@pytest.mark.parametrize(("case", "path"), sparse_and_dense())
@pytest.mark.parametrize("bias", [0.0, 1.0], ids=["busy", "quiet"])
def test_float64(case: Case, path: str, bias: float) -> None:
    assert_equal(*both(case, PATHS[path], torch.float64, bias=bias), tol=1e-12)


@pytest.mark.parametrize(("case", "path"), sparse_and_dense())
def test_float32(case: Case, path: str) -> None:
    assert_equal(*both(case, PATHS[path], torch.float32), tol=1e-5)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
@pytest.mark.parametrize("bias", [0.0, 2.5], ids=["busy", "quiet"])
def test_float32_through_the_screen(case: Case, bias: float) -> None:
    if case.options.get("k", 0) > 20:
        pytest.skip("so many are active that the screen does not serve")
    if case.options.get("lp_norm") == 0.5:
        pytest.skip("an activation next to 0 has a huge gradient, in which float32 keeps few digits")
    if "matryoshka_widths" in case.options:
        case = replace(case, options=case.options | {"matryoshka_widths": (64, 256, 1024)})
    architecture = case.build(d_in=48, d_sae=1024)
    params = params_for(architecture, torch.float32, bias=bias)
    x, dead = batch(torch.float32, d_in=48), dead_mask(1024) if case.dead else None
    engine = SparseEngine(KernelChoice(screen=True, dense_above=0.2, chunk_elements=1024 * 32))
    exact = {name: p.double() for name, p in params.items()}
    want = ReferenceEngine().step(architecture, exact, x.double(), case.knobs, dead, case.target(x.double()))
    assert_equal(engine.step(architecture, params, x, case.knobs, dead, case.target(x)), want, tol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("kernels", ["torch", "triton"])
@pytest.mark.parametrize(("case", "path"), sparse_and_dense())
def test_cuda(case: Case, path: str, kernels: PairKernels) -> None:
    assert_equal(*both(case, replace(PATHS[path], pairs=kernels), torch.float64, device="cuda"), tol=1e-12)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("case", [c for c in CASES if c.kind in PENALISED], ids=lambda c: c.name)
def test_dense_chunks_out_of_fp16_parts(case: Case, device: str) -> None:
    if case.options.get("lp_norm") == 0.5:
        pytest.skip("an activation next to 0 has a huge gradient, in which float32 keeps few digits")
    choice = KernelChoice(dense_above=0.0, chunk_elements=96 * 32, gemm="split_fp16")
    assert_equal(*both(case, choice, torch.float32, device=device), tol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("kernels", ["torch", "triton"])
@pytest.mark.parametrize(("case", "path"), sparse_and_dense())
def test_float32_on_cuda(case: Case, path: str, kernels: PairKernels) -> None:
    assert_equal(*both(case, replace(PATHS[path], pairs=kernels), torch.float32, device="cuda"), tol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("dense_above", [0.0, 1.0])
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_cuda_twice_the_same(case: Case, dense_above: float) -> None:
    architecture = case.build(d_in=48, d_sae=1024)
    params = params_for(architecture, torch.float32, device="cuda")
    x, dead = batch(torch.float32, d_in=48, device="cuda"), dead_mask(1024, device="cuda") if case.dead else None
    engine = SparseEngine(KernelChoice(gemm="split_fp16", pairs="triton", dense_above=dense_above))
    runs = []
    for _ in range(2):
        step = engine.step(architecture, params, x, case.knobs, dead, case.target(x))
        found = {**step.grads, **step.losses, "firing": step.firing_F}
        runs.append({name: value.clone() for name, value in found.items()})
    assert all(torch.equal(value, runs[1][name]) for name, value in runs[0].items())


# The wide window of one case covers nearly every pair, whatever the inputs.
MIXABLE = [c for c in CASES if c.kind in PENALISED and "wide" not in c.name]


@pytest.mark.parametrize("case", MIXABLE, ids=lambda c: c.name)
def test_chunks_of_either_path_mix_within_a_batch(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: Counter[str] = Counter()
    for name in ("add_pairs", "add_product"):
        original = getattr(Accumulator, name)
        monkeypatch.setattr(Accumulator, name, lambda *a, n=name, f=original: (taken.update([n]), f(*a))[1])
    monkeypatch.setattr(jumprelu, "is_wide", lambda *_: False)
    architecture = case.build()
    params, x = params_for(architecture, torch.float64), batch(torch.float64)
    # Every other chunk has weak inputs, and negative biases keep most of its latents quiet.
    x.view(5, 16, -1)[1::2] *= 0.05
    params["b_gate" if case.kind == "gated" else "b_enc"] -= 0.5
    dead = dead_mask() if case.dead else None
    want = ReferenceEngine().step(architecture, params, x, case.knobs, dead, case.target(x))
    engine = SparseEngine(KernelChoice(dense_above=0.1, chunk_elements=96 * 16))
    assert_equal(engine.step(architecture, params, x, case.knobs, dead, case.target(x)), want, tol=1e-12)
    assert taken["add_pairs"]
    assert taken["add_product"]


@pytest.mark.parametrize("case", [c for c in CASES if c.kind == "jumprelu"], ids=lambda c: c.name)
@pytest.mark.parametrize("bias", [0.9, 9.0], ids=["few", "none"])
def test_few_active_pairs_in_dense_chunks(case: Case, bias: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A window so wide that nearly all pairs matter, few of which are active: only they reach the decoder."""
    taken: Counter[str] = Counter()
    for name in ("add_pairs", "add_product"):
        original = getattr(Accumulator, name)
        monkeypatch.setattr(Accumulator, name, lambda *a, n=name, f=original: (taken.update([n]), f(*a))[1])
    case = replace(case, options=case.options | {"jumprelu_bandwidth": 20.0 if bias == 9.0 else 4.0})
    choice = KernelChoice(dense_above=0.3, chunk_elements=96 * 16)
    assert_equal(*both(case, choice, torch.float64, bias=bias), tol=1e-12)
    assert taken["add_pairs"] == (1 if case.options["jumprelu_ste_to_input"] else 2)
    assert bool(taken["add_product"]) == case.options["jumprelu_ste_to_input"]


@pytest.mark.parametrize("case", [c for c in CASES if c.kind == "jumprelu"], ids=lambda c: c.name)
def test_wide_and_dense_chunks_mix_within_a_batch(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    paths: list[bool] = []
    original = jumprelu.is_wide
    monkeypatch.setattr(jumprelu, "is_wide", lambda *a: (paths.append(original(*a)), paths[-1])[1])
    monkeypatch.setattr(jumprelu, "PENDING_PAIRS", 1)
    architecture = replace(case, options=case.options | {"jumprelu_bandwidth": 4.0}).build()
    params, x = params_for(architecture, torch.float64, bias=0.9), batch(torch.float64)
    x.view(5, 16, -1)[1::2] *= 8
    dead = dead_mask() if case.dead else None
    want = ReferenceEngine().step(architecture, params, x, case.knobs, dead, case.target(x))
    engine = SparseEngine(KernelChoice(dense_above=0.3, chunk_elements=96 * 16))
    assert_equal(engine.step(architecture, params, x, case.knobs, dead, case.target(x)), want, tol=1e-12)
    assert set(paths) == {True, False}


@pytest.mark.parametrize("case", [c for c in CASES if c.dead], ids=lambda c: c.name)
@pytest.mark.parametrize("share", [0.0, 0.05, 1.0], ids=["none", "few", "all"])
def test_any_number_of_dead_latents(case: Case, share: float) -> None:
    architecture = case.build()
    params, x, dead = params_for(architecture, torch.float64), batch(torch.float64), dead_mask(share=share)
    got = SparseEngine().step(architecture, params, x, case.knobs, dead, case.target(x))
    assert_equal(got, ReferenceEngine().step(architecture, params, x, case.knobs, dead, case.target(x)), tol=1e-12)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_one_token(case: Case) -> None:
    architecture = case.build()
    params, x = params_for(architecture, torch.float64), batch(torch.float64, n_tokens=1)
    dead = dead_mask() if case.dead else None
    got = SparseEngine().step(architecture, params, x, case.knobs, dead, case.target(x))
    assert_equal(got, ReferenceEngine().step(architecture, params, x, case.knobs, dead, case.target(x)), tol=1e-12)
