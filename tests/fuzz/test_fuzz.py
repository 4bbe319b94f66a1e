"""A few hundred damaged files of every kind that is read; `python -m tests.fuzz` takes 20,000."""

import builtins
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from saesweep.cli import main
from tests.fuzz.run import fuzz, shares
from tests.fuzz.run_directories import RUN_TARGETS, RunDirectories
from tests.fuzz.targets import TARGETS, Bomb, World
from tests.fuzz.watch import watched
from tests.models.tiny import save_llama

INPUTS = 400


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("fuzz") / "world")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> RunDirectories:
    return RunDirectories(tmp_path_factory.mktemp("fuzz") / "runs")


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_files_are_read_or_refused(name: str, world: World) -> None:
    inputs = shares(INPUTS)[name]
    count, failures = fuzz(name, world, inputs, number=0)
    assert not failures, "\n".join(failures)
    assert count >= 0.9 * inputs


@pytest.mark.long
@pytest.mark.parametrize("name", RUN_TARGETS)
def test_damaged_run_directories_are_read_or_refused(name: str, runs: RunDirectories) -> None:
    inputs = shares(INPUTS)[name]
    count, failures = fuzz(name, runs, inputs, number=0)
    assert not failures, "\n".join(failures)
    assert count >= 0.9 * inputs


@pytest.mark.parametrize(
    "act",
    [
        lambda folder: (folder.parent / "outside").write_text("x"),
        lambda folder: (folder / ".." / "made").mkdir(),
        lambda folder: (folder.parent / "there").rename(folder.parent / "renamed"),
        lambda folder: os.unlink(folder.parent / "there"),
        lambda folder: subprocess.run(["true"], check=True),
        lambda folder: os.system("true"),
        lambda folder: pickle.loads(pickle.dumps(Bomb(folder / "canary"))),
    ],
)
def test_the_watch_sees_what_is_forbidden(act: Callable[[Path], object], tmp_path: Path) -> None:
    folder = tmp_path / "allowed"
    folder.mkdir()
    (tmp_path / "there").write_text("x")
    with pytest.raises(AssertionError, match="forbidden"), watched(folder):
        act(folder)


def test_the_watch_allows_what_is_allowed(tmp_path: Path) -> None:
    with watched(tmp_path):
        (tmp_path / "x").write_text("x")
        (tmp_path / "x").rename(tmp_path / "y")
        (tmp_path / "y").unlink()
        Path(__file__).read_text()


def test_code_beside_a_model_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model folder may bring its own Python (`auto_map`); only `trust_remote_code: true` in the file runs it."""
    canary, folder = tmp_path / "canary", save_llama(tmp_path / "model")
    code = f"open({str(canary)!r}, 'w').close()\nfrom transformers import LlamaConfig as C, LlamaForCausalLM as M\n"
    (folder / "modeling_own.py").write_text(code)
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "own",
        "auto_map": {"AutoConfig": "modeling_own.C", "AutoModelForCausalLM": "modeling_own.M"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (tmp_path / "text.txt").write_text("one two three " * 2000)
    experiment = tmp_path / "e.yaml"
    base = {
        "model_name": str(folder),
        "hook_name": "model.layers.0",
        "dataset_path": str(tmp_path / "text.txt"),
        "device": "cpu",
        "training_tokens": 4096,
        "sae": {"d_sae": 64},
    }
    experiment.write_text(json.dumps({"name": "own", "base": base}))
    monkeypatch.setattr(builtins, "input", lambda *_: pytest.fail("nobody is asked to trust code"))
    monkeypatch.setattr(sys, "stdin", None)
    for command in (
        ["hooks", str(folder)],
        ["run", str(experiment), "--run-dir", str(tmp_path / "r")],
    ):
        assert main(command) == 2
        said = capsys.readouterr().err
        assert "trust_remote_code" in said
        assert "Traceback" not in said
    assert not canary.exists()
