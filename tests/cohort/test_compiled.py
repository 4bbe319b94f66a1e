"""`compile_sae`: the compiled reference path against the eager one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import saesweep
from saesweep.cohort import CompiledForward, ReferenceEngine
from saesweep.errors import UserError
from saesweep.experiment import load_experiment
from saesweep.saes import Knobs, architecture_for
from saesweep.specs.architectures import spec_class
from tests.sweep.studies import small_sweep, snapshot

FIELDS: dict[str, dict[str, Any]] = {
    "standard": {"l1_coefficient": 2.0},
    "gated": {"l1_coefficient": 2.0},
    "jumprelu": {"l0_coefficient": 0.3, "pre_act_loss_coefficient": 0.1},
    "topk": {"k": 4},
    "batchtopk": {"k": 4.5},
}


class Counted(CompiledForward):
    """Does not compile: counts what would run compiled."""

    calls = 0

    def __call__(self, *args: Any) -> Any:
        self.calls += 1
        return super().__call__(*args)


def one_step(engine: ReferenceEngine, architecture: str, *, dead: bool, strength: float = 1.0) -> Any:
    spec = spec_class(architecture)(d_in=16, d_sae=32, **FIELDS[architecture])  # type: ignore[arg-type]
    sae = architecture_for(spec)
    knobs = Knobs.from_spec(spec)
    knobs = Knobs(l1_coefficient=knobs.l1_coefficient * strength, l0_coefficient=knobs.l0_coefficient, k=knobs.k)
    params = sae.init(torch.Generator().manual_seed(0))
    x_BD = torch.randn(24, 16, generator=torch.Generator().manual_seed(1))
    return engine.step(sae, params, x_BD, knobs, torch.arange(32) % 3 == 0 if dead else None)


@pytest.mark.parametrize("architecture", ["standard", "topk"])
def test_steps_with_a_loss_on_dead_latents_run_as_they_are(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    compiled = Counted(None)
    engine, plain = ReferenceEngine(compiled=compiled), ReferenceEngine()
    for dead in (False, True):
        found, expected = (one_step(e, architecture, dead=dead) for e in (engine, plain))
        assert float(found.loss) == float(expected.loss)
        torch.testing.assert_close(found.grads, expected.grads, rtol=0, atol=0)
    assert compiled.calls == (2 if architecture == "standard" else 1)


def test_a_machine_that_cannot_compile_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._dynamo.exc import BackendCompilerFailed

    def fails(*_: Any) -> Any:
        raise BackendCompilerFailed(len, RuntimeError("no C++ compiler"), None)

    monkeypatch.setattr(torch, "compile", lambda *_, **__: fails)
    with pytest.raises(UserError, match=r"base.compile_sae: .*no C\+\+ compiler.*Leave compile_sae out"):
        one_step(ReferenceEngine(compiled=CompiledForward(None)), "standard", dead=False)


def test_where_it_does_nothing_a_warning_says_so() -> None:
    tree = small_sweep()
    tree["base"]["compile_sae"] = True
    assert any("compile_sae compiles the reference path alone" in w for w in load_experiment(tree).warnings)
    tree["base"]["autocast"] = True
    assert any("compile_sae" in w for w in load_experiment(tree).warnings)
    tree["cohort"]["kernels"] = "reference"
    assert not any("compile_sae" in w for w in load_experiment(tree).warnings)


def test_with_autocast_it_compiles_the_penalty_based_architectures() -> None:
    tree = small_sweep()
    tree["base"] |= {"compile_sae": True, "autocast": True}
    tree["base"]["sae"]["architecture"] = "standard"
    tree["base"]["sae"].pop("k", None)
    tree["space"] = {"lr": {"float": [1e-4, 1e-3]}}
    tree.pop("by_architecture", None)
    tree["search"].pop("stratify", None)
    assert not any("compile_sae" in w for w in load_experiment(tree).warnings)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of dynamo and inductor, about their own use of torch
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("architecture", list(FIELDS))
def test_compiled_steps_equal_eager_ones(architecture: str, autocast: bool) -> None:
    compiled = ReferenceEngine(compiled=CompiledForward(None), autocast=autocast)
    eager = ReferenceEngine(autocast=autocast)
    for strength in (1.0, 0.5, 0.25):
        found, expected = (one_step(e, architecture, dead=False, strength=strength) for e in (compiled, eager))
        bound = 2e-2 if autocast else 1e-5
        torch.testing.assert_close(found.loss, expected.loss, rtol=bound, atol=0)
        for name, grad in expected.grads.items():
            torch.testing.assert_close(
                found.grads[name], grad, rtol=bound, atol=bound * float(grad.abs().max()) + 1e-12
            )
        if not autocast:
            assert torch.equal(found.firing_F, expected.firing_F)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of dynamo and inductor, about their own use of torch
def test_a_compiled_run_resumes_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from saesweep.cohort import Cohort

    tree = small_sweep()
    tree["base"] |= {"compile_sae": True, "training_tokens": 10_240}
    tree["space"]["sae.architecture"] = {"choice": ["topk", "standard"]}
    del tree["space"]["sae.l0_coefficient"], tree["by_architecture"]
    tree["search"]["trials"], tree["cohort"]["kernels"] = 3, "reference"
    saesweep.run(tree, run_dir=tmp_path / "whole")
    torch._dynamo.reset()  # type: ignore[no-untyped-call]  # a fresh process has compiled nothing yet
    train_step, steps = Cohort.train_step, [0]

    def dies_once(self: Cohort, batch: Any) -> None:
        steps[0] += 1
        if steps[0] == 27:
            raise KeyError("killed")
        train_step(self, batch)

    monkeypatch.setattr(Cohort, "train_step", dies_once)
    with pytest.raises(KeyError, match="killed"):
        saesweep.run(tree, run_dir=tmp_path / "killed")
    torch._dynamo.reset()  # type: ignore[no-untyped-call]
    saesweep.run(tree, run_dir=tmp_path / "killed")
    assert snapshot(tmp_path / "killed") == snapshot(tmp_path / "whole")
