"""Mistakes on the command line: exit code 2, one message that says what to write, no traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from saesweep.cli import main
from tests.experiment.mistakes import BASE


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "file.yaml").write_text(BASE)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/experiment.yaml").write_text(BASE)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("init ''", "an argument is empty after init; is a shell variable not set?"),
        ("run file.yaml --run-dir ''", "an argument is empty after --run-dir; is a shell variable not set?"),
        ("leaderboard ' '", "an argument is empty after leaderboard"),
        ("run file.yaml --trials 3", "a setting of the file is changed with --set search.trials=3"),
        ("plan file.yaml --lr=1e-3", "a setting of the file is changed with --set base.lr=1e-3"),
        ("run file.yaml --d-sae 512", "a setting of the file is changed with --set base.sae.d_sae=512"),
        ("run file.yaml --resume", "the same command without it resumes a run"),
        ("run file.yaml --frobnicate", "unrecognized arguments: --frobnicate\n"),
        ("runn file.yaml", "; did you mean 'run'?"),
        ("evaluate run", "; did you mean 'eval'?"),
        ("run file.yaml --display plan", "; did you mean 'plain'?"),
        ("plan run", "run is a folder, not an experiment file; name run/experiment.yaml"),
        (
            "leaderboard file.yaml",
            "file.yaml: is a file; name the run directory, which is runs/<name> unless --run-dir",
        ),
        ("report file.yaml", "file.yaml: is a file; name the run directory"),
        ("export file.yaml --to out", "file.yaml: is a file; name the run directory"),
        ("push file.yaml --repo me/it --dry-run", "file.yaml: is a file; name the run directory"),
        ("eval file.yaml", "file.yaml: is a file; name the folder of an SAE"),
        ("features file.yaml", "file.yaml: is a file; name the folder of an SAE"),
        ("run file.yaml --run-dir file.yaml/run", "file.yaml/run: Not a directory; a file is where a folder must be"),
    ],
)
def test_a_mistake_is_told(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    import shlex

    try:
        code: object = main(shlex.split(arguments))
    except SystemExit as stopped:
        code = stopped.code
    said = capsys.readouterr()
    assert code == 2
    assert message in said.err
    assert "Traceback" not in said.err
    assert said.err.count("file.yaml/run") <= 1


@pytest.mark.parametrize(
    ("override", "messages"),
    [
        ("base.lr", ["--set: 'base.lr' is not path=value, such as base.lr=1e-4"]),
        ("base.lr=", ["--set: base.lr: nothing follows the =; write base.lr=null for no value"]),
        ("base.sae.k= ", ["--set: base.sae.k: nothing follows the =; write base.sae.k=null for no value"]),
    ],
)
def test_an_override_without_a_value_is_told_once(
    override: str, messages: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["validate", "file.yaml", "--set", override]) == 2
    assert [line for line in capsys.readouterr().err.splitlines() if line.startswith("--set")] == messages
