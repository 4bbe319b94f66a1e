"""Every kind of bad input, through the command: exit code 2, one clean message naming place and fix, nothing trained."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

import saesweep
from saesweep.cli import main
from saesweep.experiment import dump_yaml
from tests.models.tiny import HIDDEN, save_llama

Tree = dict[str, Any]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture
def tree(model: Path, tmp_path: Path) -> Tree:
    text = tmp_path / "text.txt"
    text.write_text("\n".join(" ".join(f"w{(i * j) % 120}" for j in range(40)) for i in range(400)))
    return {
        "name": "bad",
        "base": {
            "model_name": str(model),
            "hook_name": "model.layers.1",
            "dataset_path": str(text),
            "context_size": 16,
            "training_tokens": 4096,
            "train_batch_size_tokens": 128,
            "device": "cpu",
            "sae": {"architecture": "topk", "d_in": HIDDEN, "d_sae": 64, "k": 4},
        },
        "evaluation": {"select_tokens": 256, "test_tokens": 256},
    }


def change(path: str, value: Any) -> Callable[[Tree, Path], None]:
    def apply(tree: Tree, _folder: Path) -> None:
        *parents, last = path.split("/")
        for key in parents:
            tree = tree.setdefault(key, {})
        tree[last] = value

    return apply


def no_text_column(tree: Tree, folder: Path) -> None:
    (folder / "rows.jsonl").write_text('{"score": 1}\n' * 20)
    tree["base"]["dataset_path"] = str(folder / "rows.jsonl")


def empty_dataset(tree: Tree, folder: Path) -> None:
    (folder / "empty.txt").write_text("")
    tree["base"]["dataset_path"] = str(folder / "empty.txt")


def damaged_shard(tree: Tree, folder: Path) -> None:
    (folder / "shards").mkdir()
    for name in ("a", "b"):
        Dataset.from_dict({"text": ["w1 w2 w3"] * 99}).to_parquet(str(folder / "shards" / f"{name}.parquet"))
    (folder / "shards" / "b.parquet").write_bytes((folder / "shards" / "b.parquet").read_bytes()[:-30])
    tree["base"] |= {"dataset_path": str(folder / "shards"), "streaming": False}


def unreadable_rows(tree: Tree, folder: Path) -> None:
    (folder / "rows.jsonl").write_text('{"text": "w1"}\n' + '{"text": "w1"\n' * 20)
    tree["base"]["dataset_path"] = str(folder / "rows.jsonl")


def no_weights(tree: Tree, folder: Path) -> None:
    broken = save_llama(folder / "broken")
    (broken / "model.safetensors").unlink()
    tree["base"]["model_name"] = str(broken)


BAD: dict[str, tuple[Callable[[Tree, Path], None], str]] = {
    "wrong key": (change("base/lerning_rate", 1e-3), r"base\.lerning_rate: unknown key"),
    "wrong type": (change("base/lr", "fast"), r"base\.lr"),
    "wrong range": (change("base/lr", -1.0), r"base\.lr"),
    "wrong unit": (change("base/training_tokens", "90 parsecs"), r"base\.training_tokens.*parsecs"),
    "nobody's parameter": (change("space", {"sae.l1_coefficient": {"float": [1, 2]}}), r"space\.sae\.l1_coefficient"),
    "when that never holds": (
        change("space", {"lr": {"float": [1e-4, 1e-3], "when": {"sae.architecture": "topkk"}}}),
        r"topkk",
    ),
    "unknown metric": (change("objective", {"minimize": "mse_loss"}), r"mse_loss.*did you mean 'mse'|mse_loss"),
    "k above d_sae": (change("base/sae/k", 65), r"base\.sae\.k: 65 is more than d_sae 64"),
    "batch above buffer": (change("base/buffer_tokens", 200), r"base\.buffer_tokens: 200 is less than two"),
    "hook that is not there": (change("base/hook_name", "model.layer.1"), r"hook_name.*model\.layers\.1"),
    "no text column": (no_text_column, r"score"),
    "empty dataset": (empty_dataset, r"empty"),
    "unknown split": (change("base/split", "trian"), r"base\.split: .* no split 'trian'; did you mean 'train'"),
    "empty split": (change("base/split", "train[:0]"), r"base\.split: 'train\[:0\]' of .* is empty"),
    "unknown column": (
        change("base/column_name", "txt"),
        r"base\.column_name: .* no column 'txt'; did you mean 'text'",
    ),
    "unknown files": (change("base/data_files", ["x.txt"]), r"base\.data_files: .* is a file"),
    "damaged shard": (damaged_shard, r"base\.dataset_path: .*b\.parquet"),
    "unreadable rows": (unreadable_rows, r"base\.dataset_path: 20 of the 21 rows .* is no JSON object"),
    "no weights": (no_weights, r"weights"),
    "wrong d_in": (change("base/sae/d_in", 33), r"33.*32|32.*33"),
    "matched on a front": (
        change("objective", {"pareto": [{"minimize": "l0"}, {"minimize": "mse"}], "matched": {"l0": [8, 16]}}),
        r"objective\.matched: needs one metric",
    ),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", list(BAD))
def test_bad_input_is_refused_before_anything_is_trained(
    name: str, tree: Tree, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    harm, said = BAD[name]
    harm(tree, tmp_path)
    file = tmp_path / "bad.yaml"
    file.write_text(dump_yaml(tree))
    run_dir = tmp_path / "run"
    assert main(["run", str(file), "--run-dir", str(run_dir), "--display", "none"]) == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message
    assert re.search(said, message, re.DOTALL), message
    assert not (run_dir / "study.db").exists()
    assert not list(run_dir.glob("trials/*"))


def test_five_mistakes_give_five_located_messages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "five.yaml"
    file.write_text(
        "name: five\n"
        "base:\n"
        "  model_name: builtin:tiny-lm\n"
        "  dataset_path: builtin:python-docs\n"
        "  contxt_size: 128\n"
        "  lr: [1]\n"
        "  sae: {architecture: topk, d_in: 128, d_sae: 512, k: 1000}\n"
        "space:\n"
        "  lr_decay_steps: {float: [3, 1]}\n"
        "objective: {minimize: delta_cee}\n"
    )
    assert main(["validate", str(file)]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith(f"{file}:")]
    assert [line.split(":")[1] for line in lines] == ["5", "6", "7", "9", "10"]


def test_a_dataset_smaller_than_the_run_is_repeated_and_said(tree: Tree, tmp_path: Path) -> None:
    notes: list[str] = []
    tree["base"]["training_tokens"] = 40_960
    saesweep.run(tree, run_dir=tmp_path / "run", listeners=[lambda e: notes.extend(getattr(e, "notes", ()))])
    assert any("epoch" in note for note in notes), notes


def test_an_unreadable_run_directory_is_not_written_over(tree: Tree, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / "run.json").write_text(json.dumps({"format_version": 99}))
    file = tmp_path / "x.yaml"
    file.write_text(dump_yaml(tree))
    assert main(["run", str(file), "--run-dir", str(run_dir), "--display", "none"]) == 2
    assert {p.name for p in run_dir.iterdir()} <= {"run.json", "lock"}
