"""Positions that `attention_mask` leaves out of training and of held-out measuring."""

from pathlib import Path

import datasets
import torch

from saesweep.activations import check_source, open_source
from saesweep.activations.documents import open_documents
from saesweep.specs.evaluation import EvaluationSpec
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
