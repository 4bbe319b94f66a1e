"""Forward passes that start at the hook and end before the head: equal to whole ones in every bit, and earlier blocks really
do not run."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import Gemma4ForCausalLM, Gemma4TextConfig

from saesweep.models import LanguageModel, LateStart, SplitHead, load_model
from tests.models.tiny import D_VOCAB, HIDDEN, run_of, save_gpt2, save_llama, save_tokenizer

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


class Passes:
    """Logits through a late start and a split head."""

    def __init__(self, model: LanguageModel, hook: str, *, kept_bytes: int = 0) -> None:
        self.head = SplitHead(model)
        self.head.prove(tokens(9), hook, torch.neg)
        self.start = LateStart(model, hook, self.head, kept_bytes=kept_bytes)

    def clean(self, batch: torch.Tensor, number: int | None = None) -> torch.Tensor:
        return self._logits(self.start.clean(batch, number))

    def spliced(self, batch: torch.Tensor, new: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        return self._logits(self.start.spliced(batch, new))

    def _logits(self, states: torch.Tensor) -> torch.Tensor:
        return torch.stack([self.head.logits(rows) for rows in states])


@pytest.mark.parametrize(("family", "hook"), [(family, hook) for family, hooks in HOOKS.items() for hook in hooks])
def test_equal_to_whole_passes(folders: dict[str, Path], family: str, hook: str) -> None:
    model = opened(folders[family], hook)
    start = Passes(model, hook)
    for seed in (0, 1):
        batch = tokens(seed)
        torch.testing.assert_close(start.clean(batch), model.logits(batch), rtol=1e-6, atol=1e-6)
        for change in (lambda a: 0.5 * a, torch.zeros_like, lambda a: a.mul_(2.0)):
            expected = model.logits(batch, replace=(hook, change))
            torch.testing.assert_close(
                start.spliced(batch, change), expected, rtol=0, atol=1e-6 * float(expected.abs().max())
            )
    assert start.head.is_split
    torch.testing.assert_close(
        start.clean(tokens(2)), model.logits(tokens(2)), rtol=1e-6, atol=1e-6
    )  # nothing left behind


def blocks_of_a_spliced_pass(blocks: Any, start: Passes) -> list[int]:
    """The numbers of the blocks that a spliced pass runs, by their attention."""
    ran: list[int] = []
    handles = []
    for i, block in enumerate(blocks):
        children = dict(block.named_children())
        attention = children.get("self_attn") or children["attn"]
        handles.append(attention.register_forward_hook(lambda *_, i=i: ran.append(i)))
    start.spliced(tokens(0), lambda a: a)
    for handle in handles:
        handle.remove()
    return ran


def test_earlier_blocks_do_not_run(folders: dict[str, Path]) -> None:
    for hook, expected in (("model.layers.2", 3), ("model.layers.2.mlp", 2), ("model.layers.0:input", 0)):
        model = opened(folders["llama"], hook)
        start = Passes(model, hook)
        start.clean(tokens(0))
        assert blocks_of_a_spliced_pass(model.model.model.layers, start) == list(range(expected, 3))  # type: ignore[attr-defined]


def test_a_model_that_would_differ_runs_in_full(folders: dict[str, Path]) -> None:
    """A second path around the blocks: what a skipped block did besides its output would be missing."""
    model = opened(folders["llama"], "model.layers.2")
    inner: nn.Module = model.model.model  # type: ignore[attr-defined]
    side: list[torch.Tensor] = []
    inner.layers[0].self_attn.register_forward_hook(lambda _m, _i, output: side.append(output[0].mean()))  # type: ignore[index]
    inner.norm.register_forward_hook(lambda _m, _i, output: output + side.pop() if side else output)  # type: ignore[union-attr]
    start = Passes(model, "model.layers.2")
    start.clean(tokens(0))
    assert blocks_of_a_spliced_pass(inner.layers, start) == [0, 1, 2]
    assert "differ" in (start.start.reason or "")


def test_whatever_a_later_block_misses_switches_the_shortcut_off(folders: dict[str, Path]) -> None:
    """As in Gemma 4, whose last layers read keys and values that an earlier layer leaves in a dictionary."""
    model = opened(folders["llama"], "model.layers.1")
    inner: nn.Module = model.model.model  # type: ignore[attr-defined]
    shared: dict[str, torch.Tensor] = {}
    inner.register_forward_pre_hook(lambda _m, _i: shared.clear())
    inner.layers[0].self_attn.register_forward_hook(lambda _m, _i, output: shared.update(key=output[0]))  # type: ignore[index]
    inner.layers[2].register_forward_hook(lambda _m, _i, output: output + shared["key"].mean())  # type: ignore[index]
    start = Passes(model, "model.layers.1")
    start.clean(tokens(0))
    assert blocks_of_a_spliced_pass(inner.layers, start) == [0, 1, 2]
    assert "KeyError" in (start.start.reason or "")
    expected = model.logits(tokens(0), replace=("model.layers.1", torch.neg))
    torch.testing.assert_close(start.spliced(tokens(0), torch.neg), expected, rtol=1e-6, atol=1e-6)


def test_gemma_4_with_shared_keys_and_values(tmp_path: Path) -> None:
    config = Gemma4TextConfig(
        vocab_size=D_VOCAB,
        hidden_size=32,
        intermediate_size=64,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        global_head_dim=8,
        num_hidden_layers=4,
        num_kv_shared_layers=2,
        vocab_size_per_layer_input=D_VOCAB,
        hidden_size_per_layer_input=8,
        layer_types=["sliding_attention", "full_attention"] * 2,
        final_logit_softcapping=2.0,
    )
    torch.manual_seed(0)
    Gemma4ForCausalLM(config).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    model = opened(tmp_path, "model.layers.1")
    start = Passes(model, "model.layers.1")
    torch.testing.assert_close(start.clean(tokens(0)), model.logits(tokens(0)), rtol=1e-6, atol=1e-6)
    assert start.head.is_split
    assert "KeyError" in (start.start.reason or "")
    expected = model.logits(tokens(0), replace=("model.layers.1", torch.neg))
    torch.testing.assert_close(start.spliced(tokens(0), torch.neg), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("class_name", ["AutoModelForCausalLM", "TransformerBridge"])
def test_of_a_module_that_runs_twice_the_first_output_is_read_and_replaced(
    folders: dict[str, Path], class_name: str
) -> None:
    """Layers 1 and 2 have one MLP."""
    model = opened(folders["llama"], "model.layers.1", model_class_name=class_name)
    layers = model.network.model.layers
    hook = "blocks.1.mlp.hook_out" if class_name == "TransformerBridge" else "model.layers.1.mlp"
    layers[2].mlp = layers[1].mlp
    runs: list[int] = []
    layers[1].mlp.register_forward_hook(lambda *_: runs.append(1))
    seen: list[torch.Tensor] = []
    read = model.activations(tokens(0), [hook])[hook]

    def note(acts: torch.Tensor) -> torch.Tensor:
        seen.append(acts.clone())
        return acts

    runs.clear()
    model.logits(tokens(0), replace=(hook, note))
    assert len(runs) == 2
    assert len(seen) == 1
    assert torch.equal(seen[0], read)


def test_clean_passes_are_remembered_within_a_limit(folders: dict[str, Path]) -> None:
    model = opened(folders["llama"], "model.layers.1")
    size = 2 * 4 * 12 * HIDDEN * 4  # the last states and the hook's block
    runs: list[int] = []
    model.network.model.layers[0].register_forward_hook(lambda *_: runs.append(1))
    for kept_bytes, remembered in ((0, 0), (size, 1), (2 * size, 2)):
        start = Passes(model, "model.layers.1", kept_bytes=kept_bytes)
        clean = [start.clean(tokens(n), n) for n in (0, 1)]
        spliced = [start.spliced(tokens(1), torch.neg)]
        runs.clear()
        again = [start.clean(tokens(n), n) for n in (0, 1)]
        assert len(runs) == 2 - remembered
        spliced.append(start.spliced(tokens(1), torch.neg))
        assert all(torch.equal(a, b) for a, b in zip(clean, again, strict=True))
        assert torch.equal(*spliced)


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
    start = Passes(model, "model.layers.2")
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
    start = Passes(model, hook)
    start.clean(tokens(0))
    assert blocks_of_a_spliced_pass(model.bridge.blocks, start) == [0, 1, 2]  # type: ignore[attr-defined]
    start.clean(tokens(0))
    assert torch.equal(
        start.spliced(tokens(0), lambda a: 2 * a), model.logits(tokens(0), replace=(hook, lambda a: 2 * a))
    )
