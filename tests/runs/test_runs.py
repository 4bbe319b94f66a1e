"""The run directory: locks, atomic writes, checkpoints that know when they are damaged, logs with torn ends."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saesweep.errors import UserError
from saesweep.runs import CheckpointStore, JsonLines, RunDirectory, replace_folder, write_json


def test_a_second_process_is_told_who_holds_the_directory(tmp_path: Path) -> None:
    path = tmp_path / "run"
    code = f"from saesweep.runs import RunDirectory; from pathlib import Path\nRunDirectory(Path({str(path)!r})).open()"
    with RunDirectory(path):
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert other.returncode == 1
    assert "in use by process" in other.stderr
    subprocess.run([sys.executable, "-c", code], check=True)  # the lock went with the context


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match="no run directory"):
        RunDirectory(tmp_path).open()
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_another_format_version_is_refused(tmp_path: Path) -> None:
    with RunDirectory(tmp_path / "run") as run:
        write_json(run.path / "run.json", {"format_version": 99})
    with pytest.raises(UserError, match="format 99"):
        RunDirectory(tmp_path / "run").open()


def test_nan_becomes_null(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": [float("nan"), 1.0], "y": float("inf")})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": [None, 1.0], "y": None}


def test_a_failed_folder_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "best"
    replace_folder(target, lambda f: (f / "a").write_text("old") and None)

    def broken(folder: Path) -> None:
        (folder / "a").write_text("new")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        replace_folder(target, broken)
    assert (target / "a").read_text() == "old"
    replace_folder(target, lambda f: (f / "b").write_text("new") and None)
    assert [p.name for p in target.iterdir()] == ["b"]


def store_with(tmp_path: Path, blocks: list[int]) -> CheckpointStore:
    store = CheckpointStore(tmp_path / "checkpoints")
    for block in blocks:
        store.save(block, {"block": block}, {"w": torch.full((4,), float(block)).t()})
    return store


def test_the_newest_checkpoint_comes_back_and_two_are_kept(tmp_path: Path) -> None:
    store = store_with(tmp_path, [1, 2, 3])
    found, damaged = store.load_latest()
    assert found is not None
    assert (found.block, found.state, found.tensors["w"].tolist()) == (3, {"block": 3}, [3.0] * 4)
    assert damaged == []
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2


@pytest.mark.parametrize("file", ["tensors.safetensors", "state.json", "checksums.json"])
@pytest.mark.parametrize("harm", ["flip", "truncate", "remove"])
def test_a_damaged_checkpoint_is_noticed_and_the_one_before_used(tmp_path: Path, file: str, harm: str) -> None:
    store = store_with(tmp_path, [1, 2])
    path = tmp_path / "checkpoints" / "00000002" / file
    data = path.read_bytes()
    if harm == "remove":
        path.unlink()
    elif harm == "truncate":
        path.write_bytes(data[: len(data) // 2])
    else:
        path.write_bytes(data[:-3] + bytes([data[-3] ^ 1]) + data[-2:])
    found, damaged = store.load_latest()
    if file == "checksums.json" and harm == "flip" and found is not None and found.block == 2:
        pytest.fail("a flipped checksum went unnoticed")
    assert found is not None
    assert found.block == 1
    assert len(damaged) == 1
    assert "00000002" in damaged[0]


def test_no_checkpoint_at_all(tmp_path: Path) -> None:
    assert CheckpointStore(tmp_path / "none").load_latest() == (None, [])


def test_a_torn_last_line_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = JsonLines(path)
    log.append({"a": 1})
    with path.open("a") as file:
        file.write('{"a": 2, "b')
    log = JsonLines(path)
    log.append({"a": 3})
    assert list(log) == [{"a": 1}, {"a": 3}]


def test_keep_drops_what_is_not_wanted(tmp_path: Path) -> None:
    log = JsonLines(tmp_path / "log.jsonl")
    for i in range(5):
        log.append({"i": i})
    log.keep(lambda line: line["i"] < 3)
    assert [line["i"] for line in log] == [0, 1, 2]


@given(
    tokens=st.lists(st.integers(0, 50), max_size=30).map(sorted),
    until=st.integers(-1, 51),
    padding=st.sampled_from([0, 100, 9000]),
)
@settings(max_examples=60, deadline=None)
def test_the_lines_after_a_checkpoint_are_dropped_from_the_end(tokens: list[int], until: int, padding: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        log = JsonLines(Path(folder) / "log.jsonl")
        for number in tokens:
            log.append({"tokens": number, "text": "é" * padding})
        log.drop_last(lambda line: line["tokens"] > until)
        assert [line["tokens"] for line in log] == [number for number in tokens if number <= until]
        log.append({"tokens": 99})
        assert [line["tokens"] for line in JsonLines(log.path)][-1] == 99


def test_a_damaged_last_line_is_named_by_its_place(tmp_path: Path) -> None:
    log = JsonLines(tmp_path / "log.jsonl")
    log.append({"tokens": 1})
    with log.path.open("ab") as file:
        file.write(b"\xff{not json\n")
    with pytest.raises(UserError, match=r"log\.jsonl: the line at byte 14 is damaged .*remove this line to resume"):
        log.drop_last(lambda line: line["tokens"] > 0)
