"""Forward passes that start at the hook: equal to whole ones in every bit, and earlier blocks really do not run."""

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from saesweep.models import LanguageModel, LateStart, load_model
from tests.models.tiny import D_VOCAB, run_of, save_gpt2, save_llama

HOOKS = {
    "llama": [
        "model.layers.0",
        "model.layers.1",
        "model.layers.2",
        "model.layers.1.mlp",
        "model.layers.2.self_attn.q_proj",
        "model.layers.2:input",
        "model.embed_tokens",
    ],
    "gpt2": ["transformer.h.0", "transformer.h.1", "transformer.h.1.attn", "transformer.ln_f"],
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {"llama": save_llama(tmp_path_factory.mktemp("l")), "gpt2": save_gpt2(tmp_path_factory.mktemp("g"))}


def opened(folder: Path, hook: str, **fields: Any) -> LanguageModel:
    return load_model(run_of(model_name=str(folder), hook_name=hook, **fields))


def tokens(seed: int) -> torch.Tensor:
    return torch.randint(3, D_VOCAB, (4, 12), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("family", "hook"), [(family, hook) for family, hooks in HOOKS.items() for hook in hooks])
def test_equal_to_whole_passes(folders: dict[str, Path], family: str, hook: str) -> None:
    model = opened(folders[family], hook)
    start = LateStart(model, hook)
    for seed in (0, 1):
        batch = tokens(seed)
        assert torch.equal(start.clean(batch), model.logits(batch))
        for change in (lambda a: 0.5 * a, torch.zeros_like, lambda a: a.mul_(2.0)):
            expected = model.logits(batch, replace=(hook, change))
            assert torch.equal(start.spliced(batch, change), expected)
    assert torch.equal(model.logits(tokens(2)), start.clean(tokens(2)))  # nothing is left behind


def test_earlier_blocks_do_not_run(folders: dict[str, Path]) -> None:
    ran: list[int] = []
    for hook, expected in (("model.layers.2", 3), ("model.layers.2.mlp", 2), ("model.layers.0:input", 0)):
        model = opened(folders["llama"], hook)
        start = LateStart(model, hook)
        start.clean(tokens(0))
        assert start.skips == expected
        ran.clear()
        attentions = [model.model.model.layers[i].self_attn for i in range(3)]  # type: ignore[attr-defined]
        handles = [a.register_forward_hook(lambda *_, i=i: ran.append(i)) for i, a in enumerate(attentions)]
        start.spliced(tokens(0), lambda a: a)
        for handle in handles:
            handle.remove()
        assert ran == list(range(expected, 3))


def test_a_model_that_would_differ_runs_in_full(folders: dict[str, Path]) -> None:
    """A second path around the blocks: what a skipped block did besides its output would be missing."""
    model = opened(folders["llama"], "model.layers.2")
    inner: nn.Module = model.model.model  # type: ignore[attr-defined]
    side: list[torch.Tensor] = []
    inner.layers[0].self_attn.register_forward_hook(lambda _m, _i, output: side.append(output[0].mean()))  # type: ignore[index]
    inner.norm.register_forward_hook(lambda _m, _i, output: output + side.pop() if side else output)  # type: ignore[union-attr]
    start = LateStart(model, "model.layers.2")
    start.clean(tokens(0))
    assert start.skips == 0


def test_another_thread_sees_the_whole_model(folders: dict[str, Path]) -> None:
    model = opened(folders["llama"], "model.layers.2")
    expected = model.logits(tokens(5))
    found: list[bool] = []
    stop = threading.Event()

    def ahead() -> None:
        while not stop.is_set():
            found.append(torch.equal(model.logits(tokens(5)), expected))

    thread = threading.Thread(target=ahead)
    thread.start()
    start = LateStart(model, "model.layers.2")
    for seed in range(5):
        start.clean(tokens(seed))
        start.spliced(tokens(seed), lambda a: 0 * a)
    stop.set()
    thread.join()
    assert found
    assert all(found)


def test_other_libraries_run_in_full(folders: dict[str, Path]) -> None:
    hook = "blocks.1.hook_resid_post"
    model = opened(folders["llama"], hook, model_class_name="TransformerBridge")
    start = LateStart(model, hook)
    assert start.skips == 0
    start.clean(tokens(0))
    assert torch.equal(
        start.spliced(tokens(0), lambda a: 2 * a), model.logits(tokens(0), replace=(hook, lambda a: 2 * a))
    )
