"""The script that trains the built-in model: a tiny run writes a whole, loadable folder, the same one every time."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from saesweep.builtin import train

TINY_RUN = [
    *("--steps", "4", "--batch-contexts", "2", "--context-size", "32", "--vocab-size", "300", "--d-model", "16"),
    *("--layers", "1", "--heads", "2", "--max-documents", "200", "--threads", "1"),
]


@pytest.fixture(autouse=True)
def _keep_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The script sets the process's thread count, which is part of other tests' identity."""
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)


def test_a_tiny_run_writes_a_loadable_folder_reproducibly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cards = [train.main(["--out", str(tmp_path / name), *TINY_RUN]) for name in ("first", "second")]
    assert "step 4/4: loss" in capsys.readouterr().out
    for file in ("model.safetensors", "tokenizer.json", "config.json"):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()
    assert cards[0]["held_out_loss_nats_per_token"] == cards[1]["held_out_loss_nats_per_token"]

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "first")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "first")
    texts = [text for text in train.documents()[:200] if train.is_held_out(text)]
    tokens_NT = train.pack(texts, tokenizer, context_size=32)
    assert tokens_NT.numel() == cards[0]["held_out_tokens"]
    assert train.held_out_loss(model, tokens_NT) == pytest.approx(cards[0]["held_out_loss_nats_per_token"], abs=1e-3)


def test_contexts_start_with_bos_and_documents_are_separated_by_it() -> None:
    tokenizer = train.train_tokenizer(["one two three"], vocab_size=258)
    bos = tokenizer.bos_token_id
    a, b, c = (tokenizer(letter)["input_ids"][0] for letter in "abc")
    tokens_NT = train.pack(["ab", "c", "abca"], tokenizer, context_size=5)
    assert tokens_NT.tolist() == [[bos, a, b, bos, c], [bos, bos, a, b, c]]


def test_too_little_text_for_one_context_is_an_error() -> None:
    tokenizer = train.train_tokenizer(["one two three"], vocab_size=258)
    with pytest.raises(ValueError, match="fewer than one context of 64"):
        train.pack(["short"], tokenizer, context_size=64)


def test_unigram_entropy_of_equally_frequent_tokens_is_the_log_of_their_number() -> None:
    tokens_NT = torch.tensor([[0, 1, 2, 3, 4], [0, 4, 3, 2, 1]])
    assert train.unigram_entropy(tokens_NT) == pytest.approx(torch.tensor(4.0).log().item())


def test_learning_rate_warms_up_and_ends_at_a_tenth() -> None:
    rates = [train.learning_rate(step, 100, peak=1.0) for step in range(100)]
    assert rates[0] == 0.5
    assert max(rates) == rates[1] == 1.0
    assert rates[-1] == pytest.approx(0.1, abs=0.01)
