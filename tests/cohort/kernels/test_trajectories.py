"""Training with the kernels follows training with the reference, step after step."""

from __future__ import annotations

import pytest
import torch
from kernel_cases import CASES, Case, batch, params_for

from saesweep.cohort.engine import GradientEngine, ReferenceEngine
from saesweep.cohort.kernels import KernelChoice, SparseEngine
from saesweep.cohort.optimizer import adam_step_

NAMES = (
    "topk dead",
    "batchtopk dead",
    "matryoshka_batchtopk dead",
    "standard p=1.0",
    "gated",
    "jumprelu tanh ste dead",
)
ONE_OF_EACH = [c for c in CASES if c.name in NAMES]


def losses(case: Case, engine: GradientEngine, dtype: torch.dtype, steps: int) -> list[float]:
    architecture = case.build()
    params = params_for(architecture, dtype)
    m, v = ({n: torch.zeros_like(p) for n, p in params.items()} for _ in range(2))
    silent = torch.zeros(architecture.d_sae)
    x = batch(dtype, n_tokens=1600)
    found = []
    for step in range(steps):
        start = (step * 80) % 1600
        dead = silent > 3
        result = engine.step(architecture, params, x[start : start + 80], case.knobs, dead if case.dead else None)
        found.append(float(result.loss))
        silent = torch.where(result.firing_F > 0, 0, silent + 1)
        adam_step_(params, m, v, result.grads, step=step + 1, lr=3e-3, beta1=0.9, beta2=0.999)
        architecture.constrain_(params)
    return found


@pytest.mark.parametrize("case", ONE_OF_EACH, ids=lambda c: c.name)
@pytest.mark.parametrize("steps", [40, pytest.param(300, marks=pytest.mark.slow)])
def test_float64(case: Case, steps: int) -> None:
    engine = SparseEngine(KernelChoice(dense_above=0.2, chunk_elements=96 * 32))
    ours, theirs = (losses(case, e, torch.float64, steps) for e in (engine, ReferenceEngine()))
    assert len({*theirs}) > steps // 2
    assert ours == pytest.approx(theirs, rel=1e-10)


@pytest.mark.parametrize("case", ONE_OF_EACH, ids=lambda c: c.name)
@pytest.mark.parametrize("screen", [False, True])
def test_30_steps_in_float32(case: Case, screen: bool) -> None:
    engine = SparseEngine(KernelChoice(dense_above=0.2, screen=screen))
    ours, theirs = (losses(case, e, torch.float32, 30) for e in (engine, ReferenceEngine()))
    assert ours == pytest.approx(theirs, rel=1e-5)
