"""A run that continues with another space: an added choice is tried, and every trial so far stays what it was, to the bit."""

from __future__ import annotations

import copy
import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import saesweep
from saesweep.errors import UserError
from tests.driver.test_several_workers import run, run_killed, sweep
from tests.engines.simulated import SimulatedEngine
from tests.fuzz.run_directories import interrupted
from tests.reliability.conftest import few_trials
from tests.reliability.test_faults import run_with_notes
from tests.sweep.studies import snapshot

Tree = dict[str, Any]
JUMPRELU = {"preset": "anthropic-jan-2025", "sae.jumprelu_ste_to_input": True}


def small(**search: Any) -> Tree:
    """Return four trials of two architectures."""
    tree = few_trials()
    tree["search"] |= {"trials": 4, **search}
    return tree


def with_jumprelu(tree: Tree, trials: int | None = 8) -> Tree:
    """Return the same with a third architecture, its own range and its own settings."""
    found = copy.deepcopy(tree)
    found["space"]["sae.architecture"]["choice"].insert(1, "jumprelu")
    found["space"]["sae.l0_coefficient"] = {"float": [0.1, 3.0], "log": True}
    found["by_architecture"] = {"jumprelu": JUMPRELU}
    found["search"] |= {} if trials is None else {"trials": trials}
    return found


def gridded(tree: Tree) -> Tree:
    """Return the same with points instead of ranges."""
    found = copy.deepcopy(tree)
    found["space"] = {"sae.architecture": tree["space"]["sae.architecture"], "sae.k": {"choice": [4, 8]}}
    found["by_architecture"] = {"standard": {"sae.l1_coefficient": 1.0}, **tree.get("by_architecture", {})}
    return found


def matched(targets: list[int]) -> Tree:
    tree = gridded(small())
    del tree["space"]["sae.k"]
    tree["objective"] = {"minimize": "mse", "matched": {"l0": targets}}
    tree["search"] = {"sampler": "grid", "pruner": "none"}
    return tree


def kept(run_dir: Path, numbers: set[int]) -> dict[str, Any]:
    """Return all that a run holds of some of its trials, but for ranks and what those decide."""
    found = snapshot(run_dir)
    rows = [row for row in found["rows"] if row["number"] in numbers]
    places = ("rank", "rank_low", "rank_high", "on_front")
    return {
        "rows": {row["number"]: {k: v for k, v in row.items() if k not in places} for row in rows},
        "study": {name: [line for line in lines if line[0] in numbers] for name, lines in found["study"].items()},
        "weights": {name: bits for name, bits in found["weights"].items() if _trial_of(name) in numbers},
        "logs": {name: text for name, text in found["logs"].items() if _trial_of(name) in numbers},
    }


def _trial_of(path: str) -> int | None:
    parts = Path(path).parts
    return int(parts[1]) if parts[0] == "trials" else None


def continued(before: Tree, after: Tree, run_dir: Path) -> tuple[saesweep.Result, list[str]]:
    """Run to the end, change the file, run again; the trials of the first run must be the same in the second."""
    first = saesweep.run(before, run_dir=run_dir)
    assert first.status == "complete"
    numbers = {row.number for row in first.rows}
    known = kept(run_dir, numbers)
    known["study"]["params"] = _decoded(run_dir, numbers)
    result, notes = run_with_notes(after, run_dir)
    assert result.status == "complete"
    found = kept(run_dir, numbers)
    found["study"]["params"] = _decoded(run_dir, numbers)
    assert found == known
    return result, notes


def _decoded(run_dir: Path, numbers: set[int]) -> list[Any]:
    """Return the parameters by path and value: names and places in a choice may change."""
    query = (
        "select number, param_name, param_value, distribution_json from trial_params join trials using (trial_id) "
        "order by 1, 2"
    )
    with closing(sqlite3.connect(run_dir / "study.db")) as connection:
        lines = connection.execute(query).fetchall()
    found = []
    for number, name, value, distribution in lines:
        choices = json.loads(distribution)["attributes"].get("choices")
        found.append((number, name.partition("|")[0], value if choices is None else choices[int(value)]))
    return [line for line in found if line[0] in numbers]


@pytest.mark.parametrize("stratify", ["sae.architecture", None])
def test_an_added_architecture_is_tried_and_nothing_that_has_run_changes(tmp_path: Path, stratify: str | None) -> None:
    before = small(stratify=stratify, baselines=[{"sae.architecture": "topk", "sae.k": 8}])
    result, notes = continued(before, with_jumprelu(before), tmp_path / "run")
    assert sorted(row.number for row in result.rows) == list(range(8))
    if stratify:  # the added one has had no trial, so that it comes first, up to its share
        assert [row.architecture for row in sorted(result.rows, key=lambda r: r.number)][4:6] == ["jumprelu"] * 2
    assert [row.number for row in result.rows if row.is_baseline] == [0]
    assert notes[0].startswith("the run continues with another space (space.sae.architecture: added 'jumprelu'; ")
    assert "its 4 trials so far keep their numbers, settings and results" in notes[0]
    assert saesweep.run(with_jumprelu(before), run_dir=tmp_path / "run").status == "already complete"


def test_a_grid_asks_the_new_points_alone(tmp_path: Path) -> None:
    before = gridded(small())
    before["search"] = {"sampler": "grid", "rungs": ["25%"], "min_rung_steps": 5}
    after = copy.deepcopy(before)
    after["space"]["sae.k"]["choice"] = [2, 4, 8]
    after["space"]["sae.architecture"]["choice"] = ["batchtopk", "topk", "standard"]
    result, _ = continued(before, after, tmp_path / "run")
    points = [(row.architecture, row.params.get("sae.k")) for row in sorted(result.rows, key=lambda r: r.number)]
    assert points[:3] == [("topk", 4), ("topk", 8), ("standard", None)]
    assert points[3:] == [("batchtopk", 2), ("batchtopk", 4), ("batchtopk", 8), ("topk", 2)]


def test_an_added_target_is_matched_beside_the_old_ones(tmp_path: Path) -> None:
    result, notes = continued(matched([4, 8]), matched([4, 8, 16]), tmp_path / "run")
    by_number = sorted(result.rows, key=lambda row: row.number)
    assert [(row.target_l0, row.architecture) for row in by_number[4:]] == [(16, "topk"), (16, "standard")]
    assert {entry.target_l0 for entry in result.matched} == {4, 8, 16}
    assert "objective.matched.l0: added 16" in notes[0]


@pytest.mark.parametrize("sampler", ["random", "optuna.samplers.NSGAIISampler"])
def test_a_study_in_a_database_is_moved_there(tmp_path: Path, sampler: str) -> None:
    url = f"sqlite:///{tmp_path}/all.db"
    before = small(sampler=sampler, storage=url)
    first = saesweep.run(before, run_dir=tmp_path / "run")
    shutil.copy(tmp_path / "all.db", tmp_path / "run/study.db")
    numbers = {row.number for row in first.rows}
    known, params = kept(tmp_path / "run", numbers), _decoded(tmp_path / "run", numbers)
    result = saesweep.run(with_jumprelu(before), run_dir=tmp_path / "run")
    assert (result.status, len(result.rows)) == ("complete", 8)
    shutil.copy(tmp_path / "all.db", tmp_path / "run/study.db")
    found = kept(tmp_path / "run", numbers)
    assert _decoded(tmp_path / "run", numbers) == params
    del found["study"]["params"], known["study"]["params"]
    assert found == known
    with closing(sqlite3.connect(tmp_path / "all.db")) as connection:
        assert connection.execute("select study_name from studies").fetchall() == [("tiny",)]


def test_a_run_without_a_trial_left_says_so(tmp_path: Path) -> None:
    before = small()
    saesweep.run(before, run_dir=tmp_path / "run")
    result = saesweep.run(with_jumprelu(before, trials=None), run_dir=tmp_path / "run")
    assert result.status == "already complete"
    assert "all 4 trials of the search have been run: with a higher search.trials" in result.notes[-1]


def test_what_trials_have_used_stays_and_the_message_names_them(tmp_path: Path) -> None:
    before = small()
    before["space"]["sae.k"] = {"int": [4, 8]}
    before["space"]["lr"] = {"choice": [1e-3, 2e-3, 3e-3, 4e-3, 5e-3]}
    rows = saesweep.run(before, run_dir=tmp_path / "run").rows
    own = [
        number for number, row in enumerate(sorted(rows, key=lambda row: row.number)) if row.architecture == "standard"
    ]
    after = copy.deepcopy(before)
    after["space"]["sae.architecture"]["choice"] = ["topk", "gated"]
    with pytest.raises(UserError) as caught:
        saesweep.run(after, run_dir=tmp_path / "run")
    first, *lines = str(caught.value).splitlines()
    assert first.endswith("/run: holds the run of another experiment; what differs:")
    assert lines == [
        "  space.sae.architecture: added 'gated'; removed 'standard'",
        f"  trials {', '.join(map(str, own))}: space.sae.architecture is 'standard', which is outside choice ['topk', 'gated']",
        "undo the changes to resume it, or give this one its own folder with --run-dir (or another `name`)",
    ]
    # What no trial has used may go.
    used = [lr for lr in before["space"]["lr"]["choice"] if any(row.lr == lr for row in rows)]
    assert len(used) < 5
    after = copy.deepcopy(before)
    after["space"]["lr"]["choice"] = used
    after["search"]["trials"] = 5
    result, notes = run_with_notes(after, tmp_path / "run")
    assert (result.status, len(result.rows)) == ("complete", 5)
    assert notes[0].startswith("the run continues with another space (space.lr: removed 0.00")


def test_settings_of_an_architecture_that_has_trials_stay(tmp_path: Path) -> None:
    before = gridded(small())
    saesweep.run(before, run_dir=tmp_path / "run")
    after = copy.deepcopy(before)
    after["by_architecture"]["standard"]["sae.l1_coefficient"] = 2.0
    with pytest.raises(UserError, match=r"trials? [0-9, ]+: by_architecture would give other settings\n"):
        saesweep.run(after, run_dir=tmp_path / "run")


def test_an_added_stream_runs_after_the_others_and_none_is_renamed(tmp_path: Path) -> None:
    before = small()
    before["space"]["train_batch_size_tokens"] = {"choice": [256, 512]}
    after = copy.deepcopy(before)
    after["search"]["trials"] = 6
    after["space"]["train_batch_size_tokens"]["choice"] = [128, 256, 512]
    saesweep.run(before, run_dir=tmp_path / "run")
    with pytest.raises(
        UserError, match=r"'train_batch_size_tokens 256', which has trials, would get another .*after those"
    ):
        saesweep.run(after, run_dir=tmp_path / "run")
    after["space"]["train_batch_size_tokens"]["choice"] = [256, 512, 128]
    result, _ = continued(before, after, tmp_path / "run2")
    by_number = sorted(result.rows, key=lambda row: row.number)
    assert [row.params["train_batch_size_tokens"] for row in by_number] == [256, 256, 512, 512, 128, 128]


def test_an_added_normalisation_is_estimated_from_the_same_window(tmp_path: Path) -> None:
    before, path = small(), "sae.normalize_activations"
    before["space"][path] = {"choice": ["expected_average_only_in"]}
    after = copy.deepcopy(before)
    after["space"][path]["choice"].append("none")
    after["search"] |= {"trials": 8, "sampler": "random"}
    before["search"]["sampler"] = "random"
    result, _ = continued(before, after, tmp_path / "run")
    assert {row.params[path] for row in result.rows} == {"expected_average_only_in", "none"}


def test_a_larger_choice_is_planned_for_again(tmp_path: Path) -> None:
    before = small()
    before["space"]["sae.d_sae"] = {"choice": [64]}
    saesweep.run(before, run_dir=tmp_path / "run")
    file = tmp_path / "run/choices.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "slots": 9}))
    before["search"]["trials"] = 5
    saesweep.run(before, run_dir=tmp_path / "run")
    assert json.loads(file.read_text())["slots"] == 9  # as it was chosen
    before["space"]["sae.d_sae"]["choice"].append(256)
    before["search"]["trials"] = 6
    assert saesweep.run(before, run_dir=tmp_path / "run").status == "complete"
    assert json.loads(file.read_text())["slots"] == 3


def test_a_parameter_that_no_trial_has_is_refused(tmp_path: Path) -> None:
    before = small()
    saesweep.run(before, run_dir=tmp_path / "run")
    before["space"]["sae.d_sae"] = {"choice": [128, 256]}
    with pytest.raises(
        UserError, match=r"trials 0, 1, 2, 3: space.sae.d_sae is searched now, and there is no value of it"
    ):
        saesweep.run(before, run_dir=tmp_path / "run")


# ---------------------------------------------------------------- kills


@pytest.mark.parametrize("stratify", ["sae.architecture", None])
def test_what_the_study_holds_beyond_the_checkpoint_is_kept(tmp_path: Path, stratify: str | None) -> None:
    before = small(stratify=stratify)
    interrupted(before, tmp_path / "run", after_blocks=2)
    checkpoints = tmp_path / "run/checkpoints"
    shutil.copytree(checkpoints, tmp_path / "older")
    saesweep.run(before, run_dir=tmp_path / "run")
    numbers = {0, 1, 2, 3}
    known, params = kept(tmp_path / "run", numbers), _decoded(tmp_path / "run", numbers)
    shutil.rmtree(checkpoints)
    shutil.copytree(tmp_path / "older", checkpoints)  # as a kill right at the end leaves it
    (tmp_path / "run/leaderboard.json").unlink()
    result = saesweep.run(with_jumprelu(before), run_dir=tmp_path / "run")
    assert (result.status, len(result.rows)) == ("complete", 8)
    found = kept(tmp_path / "run", numbers)
    assert _decoded(tmp_path / "run", numbers) == params
    del found["study"]["params"], known["study"]["params"]
    assert found == known


SCRIPT = Path(__file__).with_name("killed_changes.py")


def kill_and_compare(*options: str) -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert "all identical" in done.stdout


@pytest.mark.long
def test_a_kill_at_a_write_loses_nothing() -> None:
    kill_and_compare("--every", "61")


@pytest.mark.slow
def test_a_kill_at_any_write_loses_nothing() -> None:
    kill_and_compare("--every", "1")


@pytest.mark.parametrize("kill_after", [3, 8, 14])
def test_several_workers_repeat_their_log_by_the_rules_that_it_was_written_by(tmp_path: Path, kill_after: int) -> None:
    before = sweep(5)
    before["space"]["sae.architecture"] = {"choice": ["topk", "batchtopk"]}
    before["search"]["stratify"] = "sae.architecture"
    run_killed(SimulatedEngine(2, 2, 1, kill_after=kill_after), tmp_path / "run", before)
    after = copy.deepcopy(before)
    after["space"]["sae.architecture"]["choice"] = ["jumprelu", "topk", "batchtopk"]
    after["search"]["trials"] = 9
    run_killed(SimulatedEngine(2, 2, 1, kill_after=2), tmp_path / "run", after)
    result = run(SimulatedEngine(2, 2, 1), tmp_path / "run", after)
    assert result.status == "complete"
    assert sorted(row.number for row in result.rows) == list(range(9))
    counts = [sum(row.architecture == name for row in result.rows) for name in ("topk", "batchtopk", "jumprelu")]
    assert counts == [3, 3, 3]
