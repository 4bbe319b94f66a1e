"""A study.db that is missing, empty, older, damaged, locked or another run's beside a checkpoint: never a wrong label."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import saesweep
from saesweep.cli import main
from saesweep.errors import UserError
from saesweep.study import storage
from tests.reliability.conftest import few_trials
from tests.reliability.test_faults import interrupt, run_with_notes
from tests.sweep.studies import snapshot

Tree = dict[str, Any]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `run`, interrupted while trials of every state are in its checkpoint, `older.db`, and `whole`."""
    folder = tmp_path_factory.mktemp("made")
    interrupt(more_trials(), folder / "run", after_blocks=3)
    shutil.copy(folder / "run" / "study.db", folder / "older.db")
    interrupt(more_trials(), folder / "run", after_blocks=5)
    newest = sorted((folder / "run" / "checkpoints").iterdir())[-1]
    states = {trial["status"] for trial in json.loads((newest / "state.json").read_text())["driver"]["trials"]}
    assert {"pruned", "complete", "training"} <= states
    saesweep.run(more_trials(), run_dir=folder / "whole")
    return folder


def more_trials() -> Tree:
    found = few_trials()
    found["search"]["trials"] = 8
    return found


@pytest.fixture
def tree() -> Tree:
    return more_trials()


@pytest.fixture(scope="module")
def reference(made: Path) -> Tree:
    return snapshot(made / "whole")


@pytest.fixture
def begun(made: Path, tmp_path: Path) -> Path:
    for name in ("run", "older.db"):
        copy = shutil.copytree if (made / name).is_dir() else shutil.copy
        copy(made / name, tmp_path / name)
    return tmp_path / "run"


def remove(file: Path) -> None:
    file.unlink()


def empty(file: Path) -> None:
    file.write_bytes(b"")


def older(file: Path) -> None:
    shutil.copy(file.parent.parent / "older.db", file)


@pytest.mark.parametrize("harm", [remove, empty, older])
def test_a_study_behind_its_checkpoint_is_made_again_and_nothing_differs(
    begun: Path, tree: Tree, reference: Tree, harm: Callable[[Path], None]
) -> None:
    harm(begun / "study.db")
    result, notes = run_with_notes(tree, begun)
    assert result.status == "complete"
    assert any("study.db lacked what the checkpoint holds" in note for note in notes)
    assert snapshot(begun) == reference


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (
            "update trial_params set param_value = param_value * 1.01 where param_name = 'lr' and trial_id = 1",
            "settings",
        ),
        ("update trial_values set value = value + 1", "result"),
        ("update trial_intermediate_values set intermediate_value = intermediate_value + 1", "report"),
        ("update trial_values set value = value + 1", "of trial"),
    ],
)
def test_a_study_with_other_trials_is_refused(begun: Path, tree: Tree, change: str, what: str) -> None:
    with sqlite3.connect(begun / "study.db") as connection:
        if "intermediate" in change and not connection.execute("select 1 from trial_intermediate_values").fetchone():
            change = "update trial_user_attributes set value_json = '[1.0, 2.0]' where key like 'rung:%'"
        connection.execute(change)
    connection.close()
    before = (begun / "study.db").read_bytes()
    with pytest.raises(UserError, match=rf"does not belong to this run's checkpoint: .*{what}.*delete it"):
        saesweep.run(tree, run_dir=begun)
    assert (begun / "study.db").read_bytes() == before


def test_a_sampler_with_notes_of_its_own_is_not_rebuilt_without_them(tree: Tree, tmp_path: Path) -> None:
    tree["search"]["sampler"] = "optuna.samplers.NSGAIISampler"
    interrupt(tree, tmp_path / "run", after_blocks=2)
    (tmp_path / "run" / "study.db").unlink()
    with pytest.raises(UserError, match=r"what search\.sampler .* noted about them"):
        saesweep.run(tree, run_dir=tmp_path / "run")


def flip(file: Path, seed: int) -> None:
    data = bytearray(file.read_bytes())
    for place in range(seed * 997 % 4096, len(data), 4096):
        data[place] ^= 0xFF
    file.write_bytes(data)


@pytest.mark.parametrize("seed", range(6))
def test_flipped_bytes_in_the_study_are_one_message_of_every_command(
    begun: Path, capsys: pytest.CaptureFixture[str], seed: int
) -> None:
    flip(begun / "study.db", seed)
    board = json.loads((begun / "leaderboard.json").read_text())
    assert board["rows"]
    for command in (
        ["leaderboard", str(begun), "--details"],
        ["report", str(begun), "--no-features", "--no-png"],
        ["run", str(begun / "experiment.yaml"), "--run-dir", str(begun), "--display", "none"],
    ):
        code = main(command)
        said = capsys.readouterr().err
        assert "Traceback" not in said
        assert "bug in saesweep" not in said
        assert code == 2, said
        assert "study.db" in said


def test_an_empty_study_is_not_turned_into_a_new_one_by_those_who_only_look(
    begun: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (begun / "study.db").write_bytes(b"")
    assert main(["leaderboard", str(begun), "--details"]) == 2
    assert "empty" in capsys.readouterr().err
    assert (begun / "study.db").stat().st_size == 0


def test_a_study_that_stays_locked_is_one_message_and_the_run_resumes(
    begun: Path, tree: Tree, reference: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "SQLITE_TIMEOUT_SECONDS", 0.2)
    other = sqlite3.connect(begun / "study.db", isolation_level=None)
    other.execute("begin exclusive")
    with pytest.raises(UserError, match=r"locked by another program.*close what has it open"):
        saesweep.run(tree, run_dir=begun)
    other.execute("rollback")
    other.close()
    assert saesweep.run(tree, run_dir=begun).status == "complete"
    assert snapshot(begun) == reference


def test_a_study_locked_midway_is_one_message(
    tree: Tree, tmp_path: Path, reference: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "SQLITE_TIMEOUT_SECONDS", 0.2)
    locks: list[sqlite3.Connection] = []

    def lock(event: Any) -> None:
        if type(event).__name__ == "BlockDone" and event.block == 3:
            locks.append(sqlite3.connect(tmp_path / "run" / "study.db", isolation_level=None))
            locks[0].execute("begin exclusive")

    with pytest.raises(
        UserError, match=r"(?s)locked by another program.*last checkpoint is safe; resume with: saesweep run"
    ):
        saesweep.run(tree, run_dir=tmp_path / "run", listeners=[lock])
    locks[0].close()
    assert saesweep.run(tree, run_dir=tmp_path / "run").status == "complete"
    assert snapshot(tmp_path / "run") == reference
