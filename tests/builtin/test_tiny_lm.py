"""The built-in language model: it has learned what its card says, and loads in both model libraries without a network."""

import importlib.resources
import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

from saesweep.builtin import model_path
from saesweep.builtin.text import documents, is_held_out
from saesweep.builtin.train import held_out_loss, pack, unigram_entropy


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(model_path())


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    return AutoModelForCausalLM.from_pretrained(model_path())


@pytest.fixture(scope="module")
def held_out_NT(tokenizer: PreTrainedTokenizerFast) -> torch.Tensor:
    return pack([text for text in documents() if is_held_out(text)], tokenizer, context_size=256)[:40]


def test_held_out_loss_is_far_below_the_unigram_entropy_and_is_the_cards(
    model: LlamaForCausalLM, held_out_NT: torch.Tensor
) -> None:
    card = json.loads((model_path() / "card.json").read_text())
    loss = held_out_loss(model, held_out_NT)
    assert loss < unigram_entropy(held_out_NT) - 1.5
    assert card["held_out_loss_nats_per_token"] < card["held_out_unigram_entropy_nats_per_token"] - 2.0
    # A sample of the held-out contexts, and other Python versions' documents differ a little.
    assert loss == pytest.approx(card["held_out_loss_nats_per_token"], abs=0.3)


def test_the_card_names_the_command_and_a_sample() -> None:
    card = json.loads((model_path() / "card.json").read_text())
    assert card["command"] == "python -m saesweep.builtin.train --out saesweep/builtin/tiny_lm"
    assert len(card["sample"]["text"]) > 40
    assert card["training_tokens"] > 5_000_000


def test_shuffled_context_costs_loss(model: LlamaForCausalLM, held_out_NT: torch.Tensor) -> None:
    """The model uses the order of the context, not only which tokens are common."""
    shuffled_NT = held_out_NT.clone()
    order = torch.randperm(held_out_NT.shape[1] - 1, generator=torch.Generator().manual_seed(0)) + 1
    shuffled_NT[:, 1:] = held_out_NT[:, order]
    assert held_out_loss(model, shuffled_NT) > held_out_loss(model, held_out_NT) + 1.0


def test_plain_load_computes_in_fp32_and_says_nothing(
    caplog: pytest.LogCaptureFixture, tokenizer: PreTrainedTokenizerFast
) -> None:
    with caplog.at_level(logging.WARNING):
        loaded = AutoModelForCausalLM.from_pretrained(model_path())
        long_text = " ".join(documents()[:5])
        assert tokenizer.decode(tokenizer(long_text)["input_ids"]) == long_text
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    assert not caplog.records
    assert sum(file.stat().st_size for file in model_path().iterdir()) < 4_000_000


def test_tokenizer_writes_any_text_and_adds_nothing(tokenizer: PreTrainedTokenizerFast) -> None:
    text = "Héllo ∑ 日本\n\tdef f(x):  # 123"
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert tokenizer.bos_token_id not in ids
    assert tokenizer.eos_token_id not in ids
    assert tokenizer.bos_token_id != tokenizer.eos_token_id


def test_transformer_lens_gives_the_same_logits_and_residual_stream(
    model: LlamaForCausalLM, held_out_NT: torch.Tensor
) -> None:
    from transformer_lens.model_bridge import TransformerBridge

    bridge = TransformerBridge.boot_transformers(str(model_path()), device="cpu")
    tokens_BT = held_out_NT[:2]
    with torch.no_grad():
        expected = model(tokens_BT, output_hidden_states=True)
        logits_BTV, cache = bridge.run_with_cache(tokens_BT, names_filter=["blocks.2.hook_out"])
    torch.testing.assert_close(logits_BTV, expected.logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(cache["blocks.2.hook_out"], expected.hidden_states[3], atol=1e-4, rtol=1e-4)


def test_the_folder_is_package_data() -> None:
    """So that an installed wheel finds it where `model_path` says."""
    folder = importlib.resources.files("saesweep").joinpath("builtin", "tiny_lm")
    assert Path(str(folder)) == model_path()
    assert folder.joinpath("model.safetensors").is_file()


def test_names_and_path_are_had_without_heavy_imports() -> None:
    script = "import saesweep.builtin as b, sys; b.model_path(); print({'torch', 'transformers'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
