"""What happens to a run directory from outside: kills, links, folders in place of files, a disk that refuses."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import saesweep
from saesweep.cli import main
from saesweep.errors import UserError
from saesweep.events import BlockDone
from saesweep.runs import FORMAT_VERSION, CheckpointStore, RunDirectory, replace_folder
from tests.reliability.conftest import few_trials
from tests.reliability.test_faults import interrupt
from tests.sweep.studies import snapshot

Tree = dict[str, Any]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was interrupted after two blocks."""
    path = tmp_path_factory.mktemp("made") / "run"
    interrupt(few_trials(), path, after_blocks=2)
    return path


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    path = tmp_path_factory.mktemp("ended") / "run"
    saesweep.run(few_trials(), run_dir=path)
    return path


@pytest.fixture
def begun(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


@pytest.fixture
def finished(ended: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(ended, tmp_path / "finished"))


# ---------------------------------------------------------------- what killed writers leave


def test_a_kill_while_run_json_is_first_written_leaves_a_directory_that_can_be_used(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in ("lock", ".run.json.4711.tmp"):
        (run / name).write_text("{")
    with RunDirectory(run):
        assert sorted(path.name for path in run.iterdir()) == ["lock", "run.json"]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("leaderboard", "no leaderboard yet"),
        ("report", "no leaderboard yet"),
        ("eval", "no exported SAE yet"),
        ("features", "no exported SAE yet"),
    ],
)
def test_a_run_that_has_just_begun_is_called_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, said: str
) -> None:
    with RunDirectory(tmp_path / "run"):
        pass
    assert main([command, str(tmp_path / "run")]) == 2
    assert said in capsys.readouterr().err


def test_a_folder_with_a_hidden_file_of_somebody_else_is_still_left_alone(tmp_path: Path) -> None:
    (tmp_path / ".bashrc").write_text("precious")
    with pytest.raises(UserError, match="no run directory"):
        RunDirectory(tmp_path).open()
    assert [path.name for path in tmp_path.iterdir()] == [".bashrc"]


def test_left_overs_are_swept_everywhere_but_in_the_folder_of_wandb(begun: Path) -> None:
    files = [".choices.json.1.tmp", "trials/0000/.trial.json.22.tmp", ".study.db.rewound", ".study.db.rewound-journal"]
    folders = ["checkpoints/.00000009.tmp", "trials/0000/.sae.tmp", ".best.tmp"]
    kept = ["wandb/.x.1.tmp", "trials/0000/notes.tmp"]
    for name in (*files, *kept):
        (begun / name).parent.mkdir(parents=True, exist_ok=True)
        (begun / name).write_text("x")
    for name in folders:
        (begun / name / "inside").mkdir(parents=True)
    with RunDirectory(begun):
        assert not [name for name in (*files, *folders) if (begun / name).exists()]
        assert all((begun / name).exists() for name in kept)


def test_a_folder_whose_replacement_was_cut_off_is_put_back(tmp_path: Path) -> None:
    target = tmp_path / "best"
    replace_folder(target, lambda folder: (folder / "a").write_text("old") and None)
    os.rename(target, tmp_path / ".best.old")  # a kill after the first of the two renames

    def broken(folder: Path) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        replace_folder(target, broken)
    assert (target / "a").read_text() == "old"
    os.rename(target, tmp_path / ".best.old")
    (tmp_path / "run.json").write_text(json.dumps({"format_version": FORMAT_VERSION}))
    with RunDirectory(tmp_path):
        assert (target / "a").read_text() == "old"
        assert not (tmp_path / ".best.old").exists()


# ---------------------------------------------------------------- links and other things in place of files


@pytest.mark.parametrize(
    "name", ["lock", "events.jsonl", "experiment.yaml", "leaderboard.json", "trials/0000/metrics.jsonl"]
)
def test_links_are_refused_and_their_targets_neither_read_nor_written(
    begun: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    target = tmp_path / "private"
    target.write_text("name: [a secret\n")
    experiment = tmp_path / "experiment.yaml"
    shutil.copy(begun / "experiment.yaml", experiment)
    (begun / name).unlink(missing_ok=True)
    (begun / name).symlink_to(target)
    for command in (
        ["run", str(experiment), "--run-dir", str(begun), "--display", "none"],
        ["leaderboard", str(begun)],
        ["report", str(begun), "--no-features", "--no-png"],
        ["export", str(begun), "--to", str(tmp_path / "out")],
        ["push", str(begun), "--repo", "a/b", "--dry-run"],
    ):
        code = main(command)
        said = capsys.readouterr()
        assert "a secret" not in said.out + said.err
        if command[0] == "leaderboard" and "/" in name:
            continue  # it reads nothing in there
        assert code == 2
        assert "is a link to" in said.err
    assert target.read_text() == "name: [a secret\n"


def test_a_linked_file_in_best_is_refused_by_eval(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "private").write_text("a secret")
    (finished / "best" / "experiment.yaml").unlink()
    (finished / "best" / "experiment.yaml").symlink_to(tmp_path / "private")
    for source in (finished, finished / "best"):
        assert main(["eval", str(source)]) == 2
        said = capsys.readouterr().err
        assert "is a link" in said
        assert "secret" not in said


def test_a_run_directory_may_itself_be_a_link(begun: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(begun)
    with RunDirectory(tmp_path / "link"):
        pass


@pytest.mark.parametrize(
    "name", ["run.json", "leaderboard.json", "choices.json", "experiment.yaml", "study.db", "events.jsonl"]
)
def test_a_folder_in_place_of_a_file_is_one_message(
    begun: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    experiment = tmp_path / "experiment.yaml"
    shutil.copy(begun / "experiment.yaml", experiment)
    (begun / name).unlink()
    (begun / name).mkdir()
    for command in (
        ["run", str(experiment), "--run-dir", str(begun), "--display", "none"],
        ["leaderboard", str(begun), "--details"],
        ["report", str(begun), "--no-features", "--no-png"],
    ):
        code = main(command)
        said = capsys.readouterr().err
        assert code in (0, 2)
        assert "Traceback" not in said
        assert "bug in saesweep" not in said
        if command[0] == "run":
            assert code == 2
            assert name in said


# ---------------------------------------------------------------- damaged content


@pytest.mark.parametrize("slots", [0, -3, "x", 1e9, 10**9, None, [], True])
def test_slots_that_no_run_has_are_refused(begun: Path, slots: object) -> None:
    choices = json.loads((begun / "choices.json").read_text())
    (begun / "choices.json").write_text(json.dumps({**choices, "slots": slots}))
    with pytest.raises(UserError, match=r"choices\.json: damaged, slots must be a whole number"):
        saesweep.run(few_trials(), run_dir=begun)


@pytest.mark.parametrize(
    "change", [{"slot_bytes": {}}, {"slot_bytes": -1}, {"slot_bytes": None}, {"slots_reason": None}]
)
def test_other_choices_that_no_run_makes_are_refused(begun: Path, change: dict[str, object]) -> None:
    choices = {**json.loads((begun / "choices.json").read_text()), **change}
    (begun / "choices.json").write_text(json.dumps(choices))
    with pytest.raises(UserError, match=rf"choices\.json: damaged, {next(iter(change))} must be"):
        saesweep.run(few_trials(), run_dir=begun)


@pytest.mark.parametrize("kernels", [[], {"gemm": "x"}, {"chunk_elements": "many"}, {"unknown": 1}])
def test_kernels_that_no_run_has_are_refused(begun: Path, kernels: object) -> None:
    choices = json.loads((begun / "choices.json").read_text())
    (begun / "choices.json").write_text(json.dumps({**choices, "kernels": kernels}))
    with pytest.raises(UserError, match=r"choices\.json.*damaged, kernels"):
        saesweep.run(few_trials(), run_dir=begun)


@pytest.mark.parametrize("content", ["[]", "{}", "", "null", '{"state.json": 3}', "[" * 100_000])
def test_a_checkpoint_without_both_checksums_is_damaged(tmp_path: Path, content: str) -> None:
    store = CheckpointStore(tmp_path / "checkpoints")
    for block in (1, 2):
        store.save(block, {"block": block}, {})
    (tmp_path / "checkpoints" / "00000002" / "checksums.json").write_text(content)
    found, damaged = store.load_latest()
    assert found is not None
    assert found.block == 1
    assert len(damaged) == 1


@pytest.mark.parametrize("name", ["²", "٣", "1", "-1", "000000000000000000000000001"])
def test_folders_that_are_no_checkpoints_are_passed_over(tmp_path: Path, name: str) -> None:
    store = CheckpointStore(tmp_path / "checkpoints")
    store.save(1, {"block": 1}, {})
    (tmp_path / "checkpoints" / name).mkdir()
    (tmp_path / "checkpoints" / "00000007").write_text("a file")
    found, damaged = store.load_latest()
    assert (found is not None and found.block, damaged) == (1, [])
    store.save(2, {"block": 2}, {})


@pytest.mark.parametrize("name", ["²", "x", "٣"])
def test_folders_that_are_no_trials_are_passed_over(begun: Path, name: str) -> None:
    (begun / "trials" / name).mkdir()
    (begun / "trials" / name / "metrics.jsonl").write_text('{"tokens": 1}\n')
    assert saesweep.run(few_trials(), run_dir=begun).status == "complete"


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00binary\n" * 5, b'{"number": ' + b"9" * 5000 + b"}\n", b"[" * 99_999 + b"\n"]
)
def test_damaged_logs_are_one_message_or_no_matter(
    finished: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    (finished / "events.jsonl").write_bytes(content)
    for command in (
        ["leaderboard", str(finished), "--details"],
        ["report", str(finished), "--no-features", "--no-png"],
    ):
        code = main(command)
        said = capsys.readouterr().err
        assert "Traceback" not in said
        assert code == 2 or command[0] == "leaderboard"


@pytest.mark.parametrize("content", [b"", b"\x08\0\0\0\0\0\0\0{}      ", b"\xff" * 40])
def test_a_damaged_sparsity_file_is_one_message_of_the_report(
    finished: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    (finished / "best" / "sparsity.safetensors").write_bytes(content)
    assert main(["report", str(finished), "--no-features", "--no-png"]) == 2
    assert "sparsity.safetensors: damaged" in capsys.readouterr().err


def test_weights_that_do_not_match_their_checksum_are_refused(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = finished / "best" / "sae_weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-2] ^= 1  # a finite value becomes another one
    weights.write_bytes(data)
    for command in (
        ["eval", str(finished / "best")],
        ["push", str(finished), "--repo", "a/b", "--dry-run"],
        ["export", str(finished), "--to", str(tmp_path / "out")],
    ):
        assert main(command) == 2
        assert "does not match its checksum in checksums.json" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    (finished / "best" / "checksums.json").unlink()  # changed on purpose
    assert main(["export", str(finished), "--to", str(tmp_path / "out")]) == 0


@pytest.mark.parametrize("source", ["a/b/..", "a/b/../../c", "../b/c", "a/./b"])
def test_a_place_on_the_hub_has_no_dots(tmp_path: Path, capsys: pytest.CaptureFixture[str], source: str) -> None:
    assert main(["pull", source, "--to", str(tmp_path / "out")]) == 2
    assert "no place on the Hub" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"9" * 5000, b"[" * 100_000, b'{"d_in": ' + b"9" * 5000 + b"}", b"\xff\xfe"])
def test_a_cfg_json_of_huge_numbers_or_depth_is_one_message(
    finished: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    (finished / "best" / "cfg.json").write_bytes(content)
    (finished / "best" / "experiment.yaml").unlink()
    (finished / "best" / "runner_cfg.json").write_bytes(content)
    start = finished.parent / "start.yaml"
    start.write_text(json.dumps({"name": "x", "base": {"from_cfg": str(finished / "best")}}))
    for command in (
        ["eval", str(finished / "best")],
        ["validate", str(start)],
        ["push", str(finished), "--repo", "a/b", "--dry-run"],
    ):
        assert main(command) == 2
        said = capsys.readouterr().err
        assert "damaged" in said
        assert "Traceback" not in said


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-8-sig"])
def test_experiment_files_in_other_encodings(tmp_path: Path, capsys: pytest.CaptureFixture[str], encoding: str) -> None:
    file = tmp_path / "e.yaml"
    file.write_bytes("name: é\nbase: {hook_name: x}\n".encode(encoding))
    for command in (["validate", str(file)], ["plan", str(file)], ["run", str(file)]):
        assert main(command) == 2
        said = capsys.readouterr().err
        assert "Traceback" not in said
        assert str(file) in said


# ---------------------------------------------------------------- the operating system refuses


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EIO, errno.ENOSPC, errno.ENAMETOOLONG])
@pytest.mark.parametrize("command", ["run", "export", "report", "new run"])
def test_what_the_operating_system_refuses_is_one_message(
    begun: Path,
    finished: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    command: str,
) -> None:
    def refuse(source: object, target: object) -> None:
        raise OSError(number, os.strerror(number), str(target))

    experiment = tmp_path / "experiment.yaml"
    shutil.copy(begun / "experiment.yaml", experiment)
    monkeypatch.setattr(os, "replace", refuse)
    argv = {
        "run": ["run", str(experiment), "--run-dir", str(begun), "--display", "none"],
        "new run": ["run", str(experiment), "--run-dir", str(tmp_path / "new"), "--display", "none"],
        "export": ["export", str(finished), "--to", str(tmp_path / "out")],
        "report": ["report", str(finished), "--no-features", "--no-png"],
    }[command]
    assert main(argv) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert len(said.splitlines()) == 1
    assert ("the disk is full" if number == errno.ENOSPC else os.strerror(number)) in said
    assert ("resume with: saesweep run" in said) == ("run" in command)


def remove(run: Path) -> None:
    shutil.rmtree(run)


def replace(run: Path) -> None:
    os.rename(run, run.with_name("moved"))
    run.mkdir()


@pytest.mark.parametrize("harm", [remove, replace])
def test_a_directory_that_goes_away_under_a_run_is_one_message(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    run = tmp_path / "run"

    def act(event: Any) -> None:
        if isinstance(event, BlockDone) and event.block == 2:
            harm(run)

    with pytest.raises(UserError, match="removed"):
        saesweep.run(few_trials(), run_dir=run, listeners=[act])
    if harm is replace:
        assert not (run / "leaderboard.json").exists() or "running" not in (run / "leaderboard.json").read_text()
        os.rename(run, tmp_path / "aside")
        os.rename(tmp_path / "moved", run)
        assert saesweep.run(few_trials(), run_dir=run).status == "complete"
        assert snapshot(run)["rows"]
