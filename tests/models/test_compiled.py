"""Compiled blocks: the same activations, and hooks inside a block still work."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from saesweep.models import load_model
from tests.models.tiny import D_VOCAB, run_of

TOKENS = torch.randint(3, D_VOCAB, (4, 16), generator=torch.Generator().manual_seed(0))
INSIDE = ["model.layers.1.mlp", "model.layers.0:input"]


class FakeCompile:
    """Stands for torch.compile: notes what it was given, and which of it runs."""

    def __init__(self) -> None:
        self.modes: list[str | None] = []
        self.runs = 0

    def __call__(self, forward: Callable[..., Any], *, mode: str | None) -> Callable[..., Any]:
        self.modes.append(mode)

        def compiled(*args: Any, **kwargs: Any) -> Any:
            self.runs += 1
            return forward(*args, **kwargs)

        return compiled


def test_blocks_run_compiled_unless_a_hook_looks_inside(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeCompile()
    monkeypatch.setattr(torch, "compile", fake)
    fields = {"model_name": str(llama), "compile_llm": True, "llm_compilation_mode": "max-autotune-no-cudagraphs"}
    plain, model = load_model(run_of(model_name=str(llama))), load_model(run_of(**fields))
    assert fake.modes == ["max-autotune-no-cudagraphs"] * 3
    hook = "model.layers.1"
    assert torch.equal(model.activations(TOKENS, [hook])[hook], plain.activations(TOKENS, [hook])[hook])
    assert fake.runs == 2  # a hook on a block does not open it, and the third never runs
    expected, found = plain.activations(TOKENS, INSIDE), model.activations(TOKENS, INSIDE)
    assert all(torch.equal(found[name], expected[name]) for name in INSIDE)
    fake.runs = 0
    spliced = model.logits(TOKENS, replace=("model.layers.1.mlp", torch.neg))
    assert torch.equal(spliced, plain.logits(TOKENS, replace=("model.layers.1.mlp", torch.neg)))
    assert fake.runs == 2  # the second block has its plain forward back


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_compiler_s_code_computes_the_same(llama: Path) -> None:
    plain = load_model(run_of(model_name=str(llama)))
    model = load_model(run_of(model_name=str(llama), compile_llm=True))
    for hooks in (["model.layers.1"], INSIDE):
        expected, found = plain.activations(TOKENS, hooks), model.activations(TOKENS, hooks)
        for hook in hooks:
            torch.testing.assert_close(found[hook], expected[hook], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        model.logits(TOKENS, replace=("model.layers.1", torch.neg)),
        plain.logits(TOKENS, replace=("model.layers.1", torch.neg)),
        atol=1e-4,
        rtol=1e-4,
    )
