"""`saesweep train` on the command line."""

import json
from pathlib import Path

import pytest

from saesweep.cli import main

FLAGS = [
    "--model_name",
    "null",
    "--hook_name",
    "synthetic",
    "--dataset_path",
    "builtin:synthetic",
    "--architecture",
    "topk",
]
FLAGS += [
    "--d_in",
    "16",
    "--sae.d_sae",
    "32",
    "--k",
    "4",
    "--training_tokens",
    "2560",
    "--train_batch_size_tokens",
    "256",
]
FLAGS += ["--set", "evaluation.select_tokens=1k", "--set", "evaluation.test_tokens=1k"]


def test_flags_train_an_sae_and_the_same_flags_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["train", *FLAGS, "--n_checkpoints", "1", "--save_final_checkpoint", "--display", "plain"]
    assert main(command) == 0
    (run_dir,) = (tmp_path / "runs").iterdir()
    assert run_dir.name.startswith("topk-")
    cfg = json.loads((run_dir / "best" / "cfg.json").read_text())
    assert (cfg["k"], cfg["d_in"], cfg["d_sae"]) == (4, 16, 32)
    snapshots = run_dir / "trials" / "0000" / "snapshots"
    assert sorted(p.name for p in snapshots.iterdir()) == ["1280", "final_2560"]
    capsys.readouterr()
    assert main(command) == 0
    assert "complete" in capsys.readouterr().out
    assert len(list((tmp_path / "runs").iterdir())) == 1
    # Going on from the snapshot, with its own configuration and a flag over it.
    again = ["train", "--from_cfg", str(snapshots / "1280"), "--from_pretrained_path", str(snapshots / "1280")]
    again += ["--lr", "1e-5", "--verbose", "false", "--run-dir", "again", "--set", "evaluation.test_tokens=1k"]
    assert main(again) == 0
    assert capsys.readouterr().out == ""
    assert (tmp_path / "again" / "best" / "cfg.json").exists()


def test_a_mistake_exits_with_2_and_names_the_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *FLAGS, "--sae.k", "64"]) == 2
    assert "--sae.k: base.sae.k: 64 is more than d_sae 32" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        main(["train", "--learning_rate", "1"])
    assert caught.value.code == 2


def test_help_groups_the_fields_and_shows_their_text(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for part in (
        "model and data:",
        "optimisation:",
        "the SAE:",
        "Weights & Biases:",
        "Peak learning rate (default: 0.0003)",
    ):
        assert part in text
    assert "Active latents per token" in text
