"""Held-out parts from a dataset of their own: all of the other one trains."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

import saesweep
from saesweep.activations import check_source, open_source
from saesweep.errors import ExperimentError, UserError
from saesweep.experiment import load_experiment
from tests.models.tiny import WORDS, save_llama, word_id

FIRST, SECOND = WORDS[:60], WORDS[60:]
"""Words of the training text, and of the other one."""


def text(file: Path, words: list[str], documents: int) -> str:
    rng = random.Random(0)
    file.write_text("\n".join(" ".join(rng.choices(words, k=40)) for _ in range(documents)))
    return str(file)


@pytest.fixture
def tree(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "model").mkdir()
    return {
        "name": "apart",
        "base": {
            "model_name": str(save_llama(tmp_path / "model")),
            "hook_name": "model.layers.1",
            "dataset_path": text(tmp_path / "train.txt", FIRST, 60),
            "streaming": False,
            "context_size": 16,
            "training_tokens": 1024,
            "train_batch_size_tokens": 64,
            "store_batch_size_prompts": 8,
            "device": "cpu",
            "sae": {"architecture": "topk", "d_sae": 64, "k": 4},
        },
        "space": {},
        "evaluation": {
            "dataset": {"dataset_path": text(tmp_path / "other.txt", SECOND, 40)},
            "select_tokens": 256,
            "test_tokens": 256,
        },
    }


def test_held_out_contexts_are_of_the_other_text_and_every_document_trains(
    tree: dict[str, Any], tmp_path: Path
) -> None:
    experiment = load_experiment(tree)
    source = open_source(experiment.base_run(), experiment.spec.evaluation, experiment.hook_names())
    first_id = word_id(60)
    for part in (source.select, source.test):
        assert part.tokens_NT is not None
        assert part.tokens_NT.numel() >= 256
        words = part.tokens_NT[part.tokens_NT >= word_id(0)]
        assert bool((words >= first_id).all())
    assert not torch.equal(source.select.tokens_NT, source.test.tokens_NT)  # type: ignore[arg-type]
    source.close()
    # 60 documents of 40 words and a separator, less what an epoch's end leaves: none of them is held out.
    whole = saesweep.run(
        {**tree, "evaluation": {**tree["evaluation"], "select_tokens": 1024}}, run_dir=tmp_path / "run"
    )
    assert whole.status == "complete"


def test_a_whole_run_measures_on_the_other_text(tree: dict[str, Any], tmp_path: Path) -> None:
    apart = saesweep.run(tree, run_dir=tmp_path / "apart")
    del tree["evaluation"]["dataset"]
    split = saesweep.run(tree, run_dir=tmp_path / "split")
    assert apart.rows[0].metrics["ce_loss_without_sae"] != split.rows[0].metrics["ce_loss_without_sae"]


def test_it_is_read_from_the_environment_and_written_as_it_was(
    tree: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTHER_TEXT", tree["evaluation"]["dataset"]["dataset_path"])
    tree["evaluation"]["dataset"]["dataset_path"] = "${env:OTHER_TEXT}"
    saesweep.run(tree, run_dir=tmp_path / "run")
    assert "${env:OTHER_TEXT}" in (tmp_path / "run" / "experiment.yaml").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset_path": "nowhere.txt"}, "'nowhere.txt'"),
        (
            {"dataset_path": "base.text.jsonl"},
            r"^evaluation\.dataset\.dataset_path: base\.text\.jsonl has no text column",
        ),
        ({"dataset_path": "base.text.jsonl", "column_name": "words"}, r"^evaluation\.dataset\.column_name: base\.text"),
        ({"dataset_path": "builtin:synthetic"}, "has no text"),
        ({"path": "other.txt"}, "path"),
    ],
)
def test_mistakes_are_told_before_a_model_loads(
    tree: dict[str, Any], tmp_path: Path, change: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.text.jsonl").write_text('{"poem": "one"}\n')
    tree["evaluation"]["dataset"] = change
    with pytest.raises((ExperimentError, UserError), match=message):
        saesweep.run(tree, run_dir=tmp_path / "run")


def test_a_dataset_that_is_too_small_is_named(tree: dict[str, Any], tmp_path: Path) -> None:
    tree["evaluation"]["select_tokens"] = 5000
    with pytest.raises(UserError, match=r"evaluation.dataset: .*other.txt has about \d+ tokens, fewer than the 5256"):
        saesweep.run(tree, run_dir=tmp_path / "run")


def test_a_row_of_it_that_cannot_be_used_is_left_out_and_said(
    tree: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [[word_id(at % 60) for at in range(row, row + 16)] for row in range(60)]
    rows[3] = rows[3][:9]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"input_ids": row}) + "\n" for row in rows))
    tree["evaluation"]["dataset"] = {"dataset_path": str(file)}
    experiment = load_experiment(tree)
    run, evaluation, hooks = experiment.base_run(), experiment.spec.evaluation, experiment.hook_names()
    said = check_source(run, evaluation, hooks, training_tokens=1024).warnings
    assert any(text.startswith("evaluation.dataset.dataset_path: 1 of the 60 rows") for text in said)
    caplog.clear()
    open_source(run, evaluation, hooks).close()
    logged = [record.getMessage() for record in caplog.records if "cannot be used" in record.getMessage()]
    assert all(text.startswith("evaluation.dataset.dataset_path: ") for text in logged)
    assert len(logged) == 1


def test_a_cache_knows_which_text_it_holds_out(tree: dict[str, Any], tmp_path: Path) -> None:
    from saesweep.activations.cache.manifest import source_fields

    experiment = load_experiment(tree)
    fields = source_fields(experiment.base_run(), experiment.spec.evaluation)
    assert fields["evaluation.dataset"]["dataset_path"].endswith("other.txt")
    assert "evaluation.dataset" not in source_fields(
        experiment.base_run(), experiment.spec.evaluation.model_copy(update={"dataset": None})
    )
