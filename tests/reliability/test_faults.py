"""Each promise about faults, injected into a whole run and seen through `saesweep.run`."""

import errno
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import saesweep
from saesweep import atomic
from saesweep.activations import SyntheticStream
from saesweep.activations.synthetic import SyntheticHeldOut
from saesweep.cohort import Cohort
from saesweep.errors import UserError
from saesweep.events import BlockDone, Note
from saesweep.runs import CheckpointStore, RunDirectory
from tests.sweep.studies import snapshot

Tree = dict[str, Any]


def interrupt(tree: Tree, run_dir: Path, after_blocks: int) -> None:
    """Run with one Ctrl-C after a number of blocks."""
    blocks = 0

    def press(event: Any) -> None:
        nonlocal blocks
        blocks += isinstance(event, BlockDone)
        if isinstance(event, BlockDone) and blocks == after_blocks:
            signal.raise_signal(signal.SIGINT)

    assert saesweep.run(tree, run_dir=run_dir, listeners=[press]).status == "interrupted"


def run_with_notes(tree: Tree, run_dir: Path) -> tuple[saesweep.Result, list[str]]:
    notes: list[str] = []
    result = saesweep.run(
        tree, run_dir=run_dir, listeners=[lambda e: notes.append(e.message) if isinstance(e, Note) else None]
    )
    return result, notes


# ---------------------------------------------------------------- corrupt and torn files


def test_a_corrupt_checkpoint_falls_back_to_the_one_before(tree: Tree, tmp_path: Path, reference: Tree) -> None:
    interrupt(tree, tmp_path / "run", after_blocks=5)
    newest = sorted((tmp_path / "run" / "checkpoints").iterdir())[-1] / "tensors.safetensors"
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1  # one bit
    newest.write_bytes(data)
    result, notes = run_with_notes(tree, tmp_path / "run")
    assert result.status == "complete"
    assert any("damaged" in note and "checksum" in note for note in notes)
    assert snapshot(tmp_path / "run") == reference


def test_no_whole_checkpoint_left_starts_over_and_says_so(tree: Tree, tmp_path: Path, reference: Tree) -> None:
    interrupt(tree, tmp_path / "run", after_blocks=6)
    for folder in (tmp_path / "run" / "checkpoints").iterdir():
        (folder / "state.json").write_text("{")
    result, notes = run_with_notes(tree, tmp_path / "run")
    assert result.status == "complete"
    assert sum("damaged" in note for note in notes) == 2
    assert snapshot(tmp_path / "run") == reference


def test_torn_last_lines_of_logs_are_cut(tree: Tree, tmp_path: Path, reference: Tree) -> None:
    interrupt(tree, tmp_path / "run", after_blocks=4)
    logs = [tmp_path / "run" / "events.jsonl", *(tmp_path / "run").glob("trials/*/metrics.jsonl")]
    for log in logs:
        with log.open("a") as file:
            file.write('{"tokens": 51')
    assert saesweep.run(tree, run_dir=tmp_path / "run").status == "complete"
    assert snapshot(tmp_path / "run") == reference
    for log in logs:
        assert [json.loads(line) for line in log.read_text().splitlines()]


# ---------------------------------------------------------------- memory and disk


def failing_once(method: Callable[..., Any], at_call: int, error: Exception, when: Callable[[Any], bool]) -> Any:
    calls = 0

    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls >= at_call and when(self):
            raise error
        return method(self, *args, **kwargs)

    return wrapped


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), id="cuda"),
        pytest.param(
            RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
            id="cpu",
            marks=pytest.mark.long,  # tests/runs/test_checkpoint_writer.py has one of these
        ),
        pytest.param(MemoryError(), id="python", marks=pytest.mark.long),  # the next test has one
    ],
)
def test_out_of_memory_halves_the_cohort_and_loses_no_trial(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    tree["cohort"]["size"] = 4
    crowded = failing_once(Cohort.train_step, 8, error, lambda cohort: len(list(cohort.occupied())) > 2)
    monkeypatch.setattr(Cohort, "train_step", crowded)
    result, notes = run_with_notes(tree, tmp_path / "run")
    assert (result.status, result.exit_code) == ("complete", 0)
    assert any("out of memory with 4 SAEs at once; the run continues with 2" in note for note in notes)
    assert sorted(row.number for row in result.rows) == list(range(6))
    assert all(row.status in ("complete", "pruned") for row in result.rows)
    assert all(row.tokens == 10_240 for row in result.rows if row.status == "complete")
    assert RunDirectory(tmp_path / "run").choices()["slots"] == 2
    # Those that were pruned while they waited for a slot have left nothing in memory.
    last, _ = CheckpointStore(tmp_path / "run" / "checkpoints").load_latest()
    assert last is not None
    assert last.state["slots"] == []


def test_a_shrunken_run_resumes_as_shrunken(tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree["cohort"]["size"] = 4
    crowded = failing_once(Cohort.train_step, 8, MemoryError(), lambda cohort: len(list(cohort.occupied())) > 2)
    monkeypatch.setattr(Cohort, "train_step", crowded)
    saesweep.run(tree, run_dir=tmp_path / "whole")
    # The same again, now interrupted while trials of lost slots wait with their weights in the checkpoint.
    monkeypatch.undo()
    crowded = failing_once(Cohort.train_step, 8, MemoryError(), lambda cohort: len(list(cohort.occupied())) > 2)
    monkeypatch.setattr(Cohort, "train_step", crowded)
    interrupt(tree, tmp_path / "run", after_blocks=5)
    assert saesweep.run(tree, run_dir=tmp_path / "run").status == "complete"
    assert snapshot(tmp_path / "run") == snapshot(tmp_path / "whole")


def test_out_of_memory_with_one_trial_says_what_to_make_smaller(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Cohort, "train_step", failing_once(Cohort.train_step, 3, MemoryError(), lambda _: True))
    with pytest.raises(UserError, match=r"single trial in the cohort.*d_sae"):
        saesweep.run(tree, run_dir=tmp_path / "run")
    monkeypatch.undo()
    assert saesweep.run(tree, run_dir=tmp_path / "run").status == "complete"  # with one slot, as it had come to


@pytest.mark.parametrize("at_write", [4, 40])
def test_a_full_disk_is_reported_and_the_run_resumes_later(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: Tree, at_write: int
) -> None:
    replace_file, writes = atomic.replace_file, 0

    def half(path: Path) -> None:
        path.write_bytes(b'{"half": ')
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    def full(path: Path, fill: Callable[[Path], object]) -> None:
        nonlocal writes
        writes += 1
        replace_file(path, half if writes >= at_write else fill)

    monkeypatch.setattr(atomic, "replace_file", full)
    with pytest.raises(UserError, match=r"the disk is full.*resume with: saesweep run"):
        saesweep.run(tree, run_dir=tmp_path / "run")
    monkeypatch.undo()
    assert saesweep.run(tree, run_dir=tmp_path / "run").status == "complete"
    assert snapshot(tmp_path / "run") == reference


def test_sqlite_meeting_a_full_disk_is_said(tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sqlite3

    from saesweep.study import Study

    tell = Study.tell

    def full(self: Any, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError("commit failed") from sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(Study, "tell", full)
    with pytest.raises(UserError, match="the disk is full"):
        saesweep.run(tree, run_dir=tmp_path / "run")
    monkeypatch.setattr(Study, "tell", tell)
    assert saesweep.run(tree, run_dir=tmp_path / "run").status == "complete"


# ---------------------------------------------------------------- activations


def poisoned(batches: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Put one NaN into these batches of the stream, counted from 0."""
    serve = SyntheticStream.next_batch

    def next_batch(self: Any) -> dict[str, torch.Tensor]:
        index = self.batches_served
        batch = serve(self)
        if index in batches:
            for x in batch.values():
                x[3, 5] = float("nan") if index % 2 else float("inf")
        return batch

    monkeypatch.setattr(SyntheticStream, "next_batch", next_batch)


def test_nan_activations_are_skipped_and_counted_and_no_trial_fails(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoned({2, 7, 40, 41}, monkeypatch)
    result, notes = run_with_notes(tree, tmp_path / "run")
    assert result.status == "complete"
    assert all(row.status in ("complete", "pruned") for row in result.rows)
    assert all(row.tokens == 10_240 for row in result.rows if row.status == "complete")
    assert sum("skipped a batch" in note for note in notes) == 3  # the fourth is only counted
    assert any("4 batches with NaN or infinite activations were skipped" in note for note in result.notes)


def test_skipped_batches_are_counted_over_a_resume(tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poisoned({2, 7, 40, 41}, monkeypatch)
    whole = saesweep.run(tree, run_dir=tmp_path / "whole")
    interrupt(tree, tmp_path / "run", after_blocks=3)
    resumed = saesweep.run(tree, run_dir=tmp_path / "run")
    assert resumed.notes == whole.notes
    assert snapshot(tmp_path / "run") == snapshot(tmp_path / "whole")


def test_too_many_nan_batches_end_the_run_clearly_and_a_higher_limit_resumes_it(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoned(set(range(20, 24)), monkeypatch)
    tree["cohort"]["max_skipped_batches"] = 3
    with pytest.raises(UserError, match=r"4 batches had NaN or infinite activations at synthetic.*max_skipped_batches"):
        saesweep.run(tree, run_dir=tmp_path / "run")
    assert json.loads((tmp_path / "run" / "leaderboard.json").read_text())["status"] == "interrupted"
    tree["cohort"]["max_skipped_batches"] = 10
    assert saesweep.run(tree, run_dir=tmp_path / "run").status == "complete"


def test_nan_in_the_held_out_part_is_not_blamed_on_trials(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = SyntheticHeldOut._draw

    def spoiled(self: Any, *args: Any, **kwargs: Any) -> Any:
        for x, acts in draw(self, *args, **kwargs):
            x = x.clone()
            x[0, 0] = float("nan")
            yield x, acts

    monkeypatch.setattr(SyntheticHeldOut, "_draw", spoiled)
    with pytest.raises(UserError, match="the held-out activations at synthetic hold NaN"):
        saesweep.run(tree, run_dir=tmp_path / "run")


# ---------------------------------------------------------------- who owns a run directory, and which experiment it holds


def test_a_second_process_is_told_who_holds_the_run(tree: Tree, tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, pathlib; from saesweep.runs import RunDirectory\n"
            f"with RunDirectory(pathlib.Path({str(tmp_path / 'run')!r})): print('held', flush=True); sys.stdin.read()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    try:
        with pytest.raises(UserError, match=rf"in use by process {holder.pid}"):
            saesweep.run(tree, run_dir=tmp_path / "run")
    finally:
        holder.kill()
        holder.communicate()
    assert saesweep.run(tree, run_dir=tmp_path / "run").status == "complete"  # the lock died with its holder


def test_a_run_directory_of_another_format_is_refused_untouched(tree: Tree, tmp_path: Path) -> None:
    interrupt(tree, tmp_path / "run", after_blocks=2)
    (tmp_path / "run" / "run.json").write_text('{"format_version": 99}')
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file() and p.name != "lock"}
    with pytest.raises(UserError, match="written in format 99, this version reads format"):
        saesweep.run(tree, run_dir=tmp_path / "run")
    assert {p: p.read_bytes() for p in before} == before


def test_compatible_changes_continue_and_give_the_same_trials(tree: Tree, tmp_path: Path, reference: Tree) -> None:
    interrupt(tree, tmp_path / "run", after_blocks=3)
    tree["cohort"] |= {"checkpoint_seconds": 5, "memory_fraction": 0.5, "max_skipped_batches": 7}
    tree["search"] |= {"max_failed": 3, "patience": 50, "time_budget": "1d", "tokens_budget": "1B"}
    assert saesweep.run(tree, run_dir=tmp_path / "run").status == "complete"
    assert snapshot(tmp_path / "run")["study"] == reference["study"]


def test_a_wider_range_continues_and_a_narrower_one_is_refused(tree: Tree, tmp_path: Path, reference: Tree) -> None:
    interrupt(tree, tmp_path / "run", after_blocks=3)
    tree["space"]["lr"] = {"float": [1e-3, 1.0], "log": True}
    tree["search"]["trials"] = 9
    result = saesweep.run(tree, run_dir=tmp_path / "run")
    assert result.status == "complete"
    asked = {row.number: row.params for row in result.rows}
    known = {row["number"]: row["params"] for row in reference["rows"]}
    assert all(asked[number] == known[number] for number in range(3))  # in training when the range widened
    tree["space"]["lr"] = {"float": [1e-3, 1e-2], "log": True}
    with pytest.raises(UserError, match=r"(?s)space\.lr\.float: .*undo the changes"):
        saesweep.run(tree, run_dir=tmp_path / "run")


def test_an_incompatible_change_is_refused_with_what_changed(tree: Tree, tmp_path: Path) -> None:
    interrupt(tree, tmp_path / "run", after_blocks=2)
    tree["space"]["lr"] = {"float": [9e-3, 2e-2], "log": True}  # leaves out trials that have begun
    with pytest.raises(
        UserError, match=r"(?s)space\.lr.*undo the changes to resume it, or give this one its own folder"
    ):
        saesweep.run(tree, run_dir=tmp_path / "run")


def test_checkpoints_after_a_damaged_one_are_kept(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "checkpoints")
    for block in (8, 9):
        store.save(block, {"block": block}, {"x": torch.zeros(2)})
        (tmp_path / "checkpoints" / f"{block:08d}" / "state.json").write_text("torn")
    checkpoint, damaged = store.load_latest()
    assert checkpoint is None
    assert len(damaged) == 2
    store.save(1, {"block": 1}, {"x": torch.ones(2)})
    found, _ = store.load_latest()
    assert found is not None
    assert found.block == 1
