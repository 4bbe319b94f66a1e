"""Positions that `attention_mask` leaves out of training and of held-out measuring."""

from pathlib import Path

import datasets
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import saesweep
from saesweep.activations import check_source, open_source
from saesweep.activations.documents import open_documents
from saesweep.builtin import model_path
from saesweep.builtin.text import documents
from saesweep.specs.experiment import EvaluationSpec
from tests.models.tiny import run_of, word_id

HOOK = "model.layers.0"
EVALUATION = EvaluationSpec(select_tokens=64, test_tokens=64)


def test_padding_gives_no_rows_and_no_losses(llama: Path, tmp_path: Path) -> None:
    lengths = [5 + row % 8 for row in range(60)]
    ids = [[word_id((row + 3 * at) % 120) if at < n else 0 for at in range(16)] for row, n in enumerate(lengths)]
    masks = [[int(at < n) for at in range(16)] for n in lengths]
    datasets.Dataset.from_dict({"input_ids": ids, "attention_mask": masks}).save_to_disk(tmp_path / "padded")
    run = run_of(model_name=str(llama), dataset_path=str(tmp_path / "padded"), streaming=False)

    source = open_source(run, EVALUATION, [HOOK])
    assert source.select.tokens_NT is not None
    assert source.select.mask_NT is not None
    for tokens_T, mask_T in zip(source.select.tokens_NT, source.select.mask_NT, strict=True):
        n = lengths[ids.index(tokens_T.tolist())]  # the ids are what the dataset holds, padding too
        # Of n tokens the last one predicts padding, whose loss says nothing.
        assert mask_T.tolist() == [at < n - 1 for at in range(16)]
    first = next(source.stream._loader._passes.from_chunk(0))  # type: ignore[attr-defined]
    rows_MD = first.rows[HOOK]
    assert torch.isfinite(rows_MD).all()
    assert len(rows_MD) < 16 * 4  # 4 contexts a pass, each with padding
    source.close()

    (note,) = (text for text in check_source(run, EVALUATION, [HOOK], training_tokens=50).warnings if "mask" in text)
    assert "left out of training and of losses" in note


def test_a_mask_that_does_not_fit_makes_its_row_unusable(llama: Path, tmp_path: Path) -> None:
    ids = [[word_id(at) for at in range(16)]] * 3
    masks = [[1] * 16, [1] * 15, [1] * 15 + [7]]
    datasets.Dataset.from_dict({"input_ids": ids, "attention_mask": masks}).save_to_disk(tmp_path / "bad")
    documents = open_documents(run_of(model_name=str(llama), dataset_path=str(tmp_path / "bad"), streaming=False))
    assert documents.read([0, 1, 2]) == [ids[0], [], []]  # type: ignore[union-attr]
    assert documents.unreadable.count == 2


def test_the_clean_loss_of_padded_rows_is_that_of_their_tokens(tmp_path: Path) -> None:
    """Padding that is read and scored makes the model look much worse than it is."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(model_path()), AutoTokenizer.from_pretrained(model_path())
    n, size = 20, 64
    ids = tokenizer(documents()[3], add_special_tokens=False)["input_ids"][: n - 1]
    row = [tokenizer.bos_token_id, *ids, *[0] * (size - n)]
    data = {"input_ids": [row] * 100, "attention_mask": [[1] * n + [0] * (size - n)] * 100}
    datasets.Dataset.from_dict(data).save_to_disk(tmp_path / "padded")
    with torch.no_grad():
        logits_TV = model(torch.tensor([row])).logits[0]
    losses_T = torch.nn.functional.cross_entropy(logits_TV[:-1], torch.tensor(row[1:]), reduction="none")
    expected, with_padding = float(losses_T[: n - 1].mean()), float(losses_T.mean())
    assert abs(with_padding - expected) > 1
    tree = {
        "name": "padded",
        "base": {
            "model_name": "builtin:tiny-lm",
            "hook_name": "model.layers.1",
            "dataset_path": str(tmp_path / "padded"),
            "streaming": False,
            "context_size": size,
            "training_tokens": 512,
            "train_batch_size_tokens": 128,
            "buffer_tokens": 512,
            "device": "cpu",
            "sae": {"architecture": "topk", "d_sae": 64, "k": 4},
        },
        "space": {},
        "evaluation": {"select_tokens": 512, "test_tokens": 512},
    }
    result = saesweep.run(tree, run_dir=tmp_path / "run")
    assert result.test_metrics is not None
    assert result.test_metrics["ce_loss_without_sae"] == pytest.approx(expected, rel=1e-4)
