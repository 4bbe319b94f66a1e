"""`cache-activations` and `pretokenize` on the command line, and their line of progress."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from saesweep.cli import main
from saesweep.cli.progress_line import ProgressLine
from saesweep.specs.pretokenize import PretokenizeSpec

EXPERIMENT = """\
name: cached
base:
  model_name: builtin:tiny-lm
  hook_name: model.layers.0
  dataset_path: {texts}
  streaming: false
  context_size: 16
  training_tokens: 1024
  train_batch_size_tokens: 128
  store_batch_size_prompts: 4
  buffer_tokens: 512
  device: cpu
  sae: {{architecture: topk, k: 4, d_in: 128, d_sae: 256}}
evaluation: {{select_tokens: 64, test_tokens: 64}}
"""


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.jsonl"
    path.write_text(
        "".join(
            json.dumps({"text": f"the value of {number} is {number * number}, " * 3}) + "\n" for number in range(300)
        )
    )
    return path


@pytest.fixture
def experiment(tmp_path: Path, texts: Path) -> Path:
    path = tmp_path / "cached.yaml"
    path.write_text(EXPERIMENT.format(texts=texts))
    return path


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What `datasets` converts does not land in the user's cache."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "converted")


def test_cache_activations(experiment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = str(tmp_path / "rows")
    assert main(["cache-activations", str(experiment), "--to", target, "--tokens", "512", "--dtype", "float16"]) == 0
    said = capsys.readouterr()
    assert f"{target}: 1152 rows to write in float16, 0.00 GB; " in said.out
    assert "GB are free" in said.out
    assert f"{target}: complete, 512 training rows at model.layers.0" in said.out
    assert "512 of 512 tokens (100%)" in said.err


def test_the_folder_may_be_in_the_experiment(experiment: Path, tmp_path: Path) -> None:
    place = f"base.cached_activations_path={tmp_path / 'rows'}"
    assert main(["cache-activations", str(experiment), "--set", place, "--tokens", "128"]) == 0
    assert (tmp_path / "rows" / "manifest.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--to: missing"),
        (["--to", "rows", "--tokens", "many"], "--tokens: 'many' is not a count"),
        (["--to", "rows", "--shard-size", "0"], "--shard-size: 0 is not positive"),
        (
            ["--to", "rows", "--set", "base.model_name=null", "--set", "base.dataset_path=builtin:synthetic"],
            "nothing to cache",
        ),
    ],
)
def test_mistakes_of_cache_activations(
    experiment: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cache-activations", str(experiment), *arguments]) == 2
    assert said in capsys.readouterr().err


def test_pretokenize(texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "tokens"
    arguments = ["--tokenizer_name", "builtin:tiny-lm", "--dataset_path", str(texts), "--save_path", str(target)]
    options = [
        "--context_size",
        "16",
        "--shuffle",
        "false",
        "--sequence_separator_token",
        "5",
        "--disable_concat_sequences",
    ]
    assert main(["pretokenize", *arguments, *options]) == 0
    assert f"{target}: " in capsys.readouterr().out
    data = json.loads((target / "sae_lens.json").read_text())
    assert (data["context_size"], data["shuffled"], data["sequence_separator_token"]) == (16, False, 5)
    assert data["disable_concat_sequences"] is True


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "dataset_path: missing"),
        (["--context_size", "big"], "--context_size: takes a whole number, not 'big'"),
        (["--context_size", ".inf"], "--context_size: takes a whole number, not '.inf'"),
        (["--num_proc", "0"], "--num_proc: must be at least 1, not 0"),
        (["--num_proc", str(10**20)], f"--num_proc: {10**20} is too large"),
    ],
)
def test_mistakes_of_pretokenize(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretokenize", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_help_of_pretokenize_describes_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["pretokenize", "--help"])
    said = capsys.readouterr().out
    assert all(f"--{name}" in said for name in PretokenizeSpec.model_fields)
    assert all(field.description for field in PretokenizeSpec.model_fields.values())


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class _Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_progress_on_a_terminal_is_rewritten_in_place() -> None:
    clock, stream = _Clock(), _Terminal()
    line = ProgressLine("tokens", stream, clock)
    for seconds, done in ((0.0, 1000), (10.0, 3000), (10.1, 3100), (20.0, 5000)):  # the third is too soon
        clock.seconds = seconds
        line.update(done, 5000)
    line.close()
    assert [part.rstrip() for part in stream.getvalue().split("\r")[2:]] == [
        "3k of 5k tokens (60%), 200/s, 10s left",
        "5k of 5k tokens (100%), 200/s",
    ]
    assert stream.getvalue().endswith("\n")


def test_progress_of_unknown_length() -> None:
    clock, stream = _Clock(), io.StringIO()
    line = ProgressLine("documents", stream, clock)
    line.update(0, None)
    clock.seconds = 60.0
    line.update(600, None)
    line.close()
    assert stream.getvalue().splitlines()[-1] == "600 documents, 10/s"
