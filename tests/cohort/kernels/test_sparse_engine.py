"""What the engine promises besides gradients: repeatability, shared memory, layout, and saying where it is not exact."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from kernel_cases import CASES, Case, batch, dead_mask, params_for

from saesweep.cohort.kernels import KernelChoice, SparseEngine
from saesweep.cohort.kernels.frame import Frame
from saesweep.cohort.optimizer import adam_step_
from saesweep.saes import Knobs, architecture_for
from saesweep.saes.topk import TopK
from saesweep.specs.architectures import BatchTopKSpec, GatedSpec, MatryoshkaBatchTopKSpec, StandardSpec, TopKSpec

ONE_OF_EACH = [
    c
    for c in CASES
    if c.name in ("topk dead", "batchtopk dead", "matryoshka_batchtopk dead", "standard p=1.0", "gated")
] + [c for c in CASES if c.name == "jumprelu tanh ste dead"]


def train(case: Case, engine: SparseEngine, steps: int = 4) -> dict[str, torch.Tensor]:
    architecture = case.build()
    params = params_for(architecture, torch.float32)
    m, v = ({n: torch.zeros_like(p) for n, p in params.items()} for _ in range(2))
    for step in range(1, steps + 1):
        x = batch(torch.float32) * step**0.5
        grads = engine.step(architecture, params, x, case.knobs, dead_mask() if case.dead else None).grads
        adam_step_(params, m, v, grads, step=step, lr=1e-2, beta1=0.9, beta2=0.999)
    return params


@pytest.mark.parametrize("case", ONE_OF_EACH, ids=lambda c: c.name)
@pytest.mark.parametrize("dense_above", [0.0, 1.0], ids=["dense", "sparse"])
def test_same_choice_same_bits(case: Case, dense_above: float) -> None:
    choice = KernelChoice(dense_above=dense_above, chunk_elements=96 * 32)
    first, second = train(case, SparseEngine(choice)), train(case, SparseEngine(choice))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_slots_that_share_an_engine_do_not_disturb_each_other() -> None:
    shared = SparseEngine()
    alone = {case.name: train(case, SparseEngine()) for case in ONE_OF_EACH}
    for case in [*ONE_OF_EACH, *reversed(ONE_OF_EACH)]:
        params = train(case, shared)
        assert all(torch.equal(params[name], alone[case.name][name]) for name in params), case.name


def test_scratch_is_shared_by_all_slots() -> None:
    engine = SparseEngine()
    train(ONE_OF_EACH[0], engine)
    one = engine.scratch_bytes()
    for _ in range(3):
        train(ONE_OF_EACH[0], engine)
    assert engine.scratch_bytes() == one
    d_in, d_sae, n_tokens, size = 24, 96, 80, 4
    assert one <= (2 * d_in * d_sae + n_tokens * d_in + 16 * n_tokens * d_sae) * size


SCREENED = ("topk", "batchtopk", "topk_transcoder", "batchtopk_skip_transcoder", "topk_crosscoder")


@pytest.mark.parametrize("architecture", SCREENED)
def test_the_screen_selects_for_transcoders_and_crosscoders_as_for_saes(architecture: str) -> None:
    """Where the choice has it: no chunk of theirs is multiplied in fp32."""
    case = Case(architecture, architecture, {"k": 6}, Knobs(k=6))
    sae = case.build(d_in=48, d_sae=1024)
    params, x = params_for(sae, torch.float32), batch(torch.float32, d_in=48)
    for screen in (True, False):
        with mock.patch.object(Frame, "pre_acts", autospec=True, side_effect=Frame.pre_acts) as in_fp32:
            SparseEngine(KernelChoice(screen=screen)).step(sae, params, x, case.knobs, None, case.target(x))
        assert in_fp32.called is not screen


def test_encoder_gradient_lies_in_memory_as_the_weight_does() -> None:
    case = ONE_OF_EACH[0]
    architecture = case.build()
    params = params_for(architecture, torch.float32)
    grads = SparseEngine().step(architecture, params, batch(torch.float32), case.knobs, None).grads
    assert grads["W_enc"].shape == params["W_enc"].shape
    assert grads["W_enc"].t().is_contiguous()


def test_weights_that_lie_otherwise_are_refused() -> None:
    case = ONE_OF_EACH[0]
    architecture = case.build()
    params = params_for(architecture, torch.float32)
    params["W_enc"] = params["W_enc"].contiguous()
    with pytest.raises(ValueError, match="W_enc of stride"):
        SparseEngine().step(architecture, params, batch(torch.float32), case.knobs, None)


class Louder(TopK):
    """A third party's architecture that builds on one of ours."""


def unsupported() -> list[object]:
    widths = {"d_in": 8, "d_sae": 16}
    spec = TopKSpec(**widths, k=2, aux_loss_coefficient=0.0)
    layer_norm = GatedSpec(**widths, normalize_activations="layer_norm")
    rescale = StandardSpec(**widths, normalize_activations="constant_norm_rescale")
    infinite = StandardSpec(**widths, lp_norm=float("inf"))
    temporal = MatryoshkaBatchTopKSpec(**widths, k=2, matryoshka_widths=(4, 8), temporal_coefficient=0.1)
    return [
        pytest.param(Louder(spec), False, "Louder", id="third party"),
        pytest.param(architecture_for(StandardSpec(**widths)), True, "autocast", id="autocast"),
        pytest.param(architecture_for(layer_norm), False, "layer_norm", id="layer_norm"),
        pytest.param(architecture_for(rescale), False, "constant_norm_rescale", id="constant_norm_rescale"),
        pytest.param(architecture_for(infinite), False, "lp_norm", id="maximum norm"),
        pytest.param(architecture_for(temporal), False, "temporal_coefficient", id="temporal"),
    ]


@pytest.mark.parametrize(("architecture", "autocast", "word"), unsupported())
def test_says_where_it_is_not_exact(architecture: object, autocast: bool, word: str) -> None:
    engine = SparseEngine(autocast=autocast)
    reason = engine.supports(architecture)  # type: ignore[arg-type]
    assert reason is not None
    assert word in reason
    with pytest.raises(ValueError, match=word):
        engine.step(architecture, {}, torch.zeros(1, 8), Knobs(), None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "spec",
    [
        TopKSpec(d_in=8, d_sae=16, k=2),
        BatchTopKSpec(d_in=8, d_sae=16, k=2),
        MatryoshkaBatchTopKSpec(d_in=8, d_sae=16, k=2, matryoshka_widths=(4, 8)),
    ],
    ids=lambda spec: spec.architecture,
)
def test_the_topk_family_keeps_its_kernels_with_autocast(spec: TopKSpec) -> None:
    assert SparseEngine(autocast=True).supports(architecture_for(spec)) is None


@pytest.mark.parametrize("mode", ["none", "expected_average_only_in", "covariance_whitening"])
def test_run_level_normalisation_is_supported(mode: str) -> None:
    architecture = architecture_for(TopKSpec(d_in=8, d_sae=16, k=2, normalize_activations=mode))  # type: ignore[arg-type]
    assert SparseEngine().supports(architecture) is None
