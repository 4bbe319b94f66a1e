"""Replicates, confirmation, stops, fixed lists: through `saesweep.run`."""

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

import saesweep
from saesweep.errors import UserError
from saesweep.events import BlockDone, RunStarted
from saesweep.experiment import dump_yaml, load_experiment
from saesweep.planning.plan import plan
from saesweep.runs import JsonLines, RunDirectory
from saesweep.worker import setup as run_setup
from tests.reliability.conftest import few_trials
from tests.sweep.studies import snapshot


@pytest.fixture
def tree() -> dict[str, Any]:
    tree = few_trials()
    tree["objective"] = {"maximize": "explained_variance", "subject_to": {"l0": {"max": 40}}}
    tree["search"] = {"trials": 4, "pruner": "none"}
    return tree


# ---------------------------------------------------------------- replicates


def test_a_trial_s_value_is_the_mean_of_its_replicates(tree: dict[str, Any], tmp_path: Path) -> None:
    single = saesweep.run(tree, run_dir=tmp_path / "single")
    tree["search"]["replicates"] = 3
    tree["cohort"]["size"] = 7  # two trials of three, the seventh slot has no use
    result = saesweep.run(tree, run_dir=tmp_path / "run")
    assert json.loads((tmp_path / "run" / "choices.json").read_text())["slots"] == 6
    alone = {row.number: row for row in single.rows}
    for row in result.rows:
        assert row.replicates == 3
        assert row.spread["explained_variance"] > 0
        log = list(JsonLines(tmp_path / f"run/trials/{row.number:04d}/metrics.jsonl"))
        last = [line for line in log if line["kind"] == "select"][-1]
        each = [replicate["explained_variance"] for replicate in last["replicates"]]
        assert row.metrics["explained_variance"] == pytest.approx(sum(each) / 3)
        assert len(set(each)) == 3
        if row.number < 2:  # the same seed, the same data: the first replicate is the single run
            assert each[0] == alone[row.number].metrics["explained_variance"]
        folders = {p.name for p in (tmp_path / f"run/trials/{row.number:04d}").iterdir() if p.is_dir()}
        assert folders == {"sae", "sae-replicate-1", "sae-replicate-2"}
    provenance = json.loads((tmp_path / "run/best/provenance.json").read_text())
    assert provenance["test_spread"]["explained_variance"] > 0
    assert any("noise floor" in note for note in result.notes)


def test_replicates_resume_bit_for_bit(tree: dict[str, Any], tmp_path: Path) -> None:
    tree["search"] |= {"replicates": 2, "pruner": "rung", "rungs": ["25%"], "min_rung_steps": 5, "min_probability": 0.3}
    tree["cohort"]["size"] = 4
    saesweep.run(tree, run_dir=tmp_path / "whole")
    interrupted(tree, tmp_path / "run", 3)
    saesweep.run(tree, run_dir=tmp_path / "run")
    assert snapshot(tmp_path / "run") == snapshot(tmp_path / "whole")


def interrupted(tree: dict[str, Any], run_dir: Path, after_blocks: int) -> None:
    blocks = 0

    def press(event: Any) -> None:
        nonlocal blocks
        blocks += isinstance(event, BlockDone)
        if isinstance(event, BlockDone) and blocks == after_blocks:
            signal.raise_signal(signal.SIGINT)

    assert saesweep.run(tree, run_dir=run_dir, listeners=[press]).status == "interrupted"


# ---------------------------------------------------------------- confirm


def test_finalists_train_again_together_and_decide(tree: dict[str, Any], tmp_path: Path) -> None:
    tree["search"]["confirm"] = {"top": 2, "replicates": 2, "training_tokens": "1.5x"}
    result = saesweep.run(tree, run_dir=tmp_path / "run")
    assert (result.status, result.exit_code) == ("complete", 0)
    board = json.loads((tmp_path / "run/leaderboard.json").read_text())
    confirmed = board["confirm"]["rows"]
    assert {row["number"] for row in confirmed} == {row.number for row in result.rows[:2]}
    assert all(row["tokens"] == 15_360 and row["joined_at_tokens"] == 0 for row in confirmed)
    assert result.best == confirmed[0]["number"] == board["best"]
    provenance = json.loads((tmp_path / "run/best/provenance.json").read_text())
    assert (provenance["trial"], provenance["tokens"]) == (result.best, 15_360)
    assert provenance["test_metrics"] == result.test_metrics
    assert any(note.startswith(f"confirmed trial {result.best}") for note in result.notes)
    again = saesweep.run(tree, run_dir=tmp_path / "run")
    assert (again.status, again.best) == ("already complete", result.best)


def test_an_interrupted_confirmation_resumes(tree: dict[str, Any], tmp_path: Path) -> None:
    tree["search"]["confirm"] = {"top": 2, "replicates": 1, "training_tokens": "1x"}
    saesweep.run(tree, run_dir=tmp_path / "whole")
    interrupted(tree, tmp_path / "run", 18)  # 16 blocks of the search, 2 of the confirmation
    assert list((tmp_path / "run" / "confirm").iterdir())
    resumed = saesweep.run(tree, run_dir=tmp_path / "run")
    assert resumed.status == "complete"
    assert snapshot(tmp_path / "run") == snapshot(tmp_path / "whole")


def test_a_front_is_confirmed_too(tree: dict[str, Any], tmp_path: Path) -> None:
    del tree["objective"]
    saesweep.run(tree, run_dir=tmp_path / "run")
    tree["search"]["confirm"] = {"top": 2, "replicates": 1, "training_tokens": 20_480}
    result = saesweep.run(tree, run_dir=tmp_path / "run")  # a finished search is confirmed afterwards
    assert result.status == "complete"
    front = [p.name for p in (tmp_path / "run" / "pareto").iterdir()]
    assert 1 <= len(front) <= 2
    assert result.best in {
        row["number"] for row in json.loads((tmp_path / "run/leaderboard.json").read_text())["confirm"]["rows"]
    }


# ---------------------------------------------------------------- stops


def test_a_target_ends_the_search_and_a_higher_one_resumes_it(tree: dict[str, Any], tmp_path: Path) -> None:
    reference = saesweep.run(tree, run_dir=tmp_path / "reference")
    tree["search"]["target"] = -1.0
    stopped = saesweep.run(tree, run_dir=tmp_path / "run")
    assert stopped.status == "complete"
    assert "search.target is reached" in stopped.notes[0]
    assert stopped.best_dir is not None
    assert len([row for row in stopped.rows if row.status == "complete"]) < len(reference.rows)
    again = saesweep.run(tree, run_dir=tmp_path / "run")
    assert again.rows == stopped.rows  # nothing more is trained
    tree["search"]["target"] = 2.0
    saesweep.run(tree, run_dir=tmp_path / "run")
    assert snapshot(tmp_path / "run") == snapshot(tmp_path / "reference")


def test_no_improvement_ends_the_search(tree: dict[str, Any], tmp_path: Path) -> None:
    tree["search"] |= {"trials": 12, "patience": 2}
    tree["cohort"]["size"] = 1
    tree["base"]["training_tokens"] = 5_120
    result = saesweep.run(tree, run_dir=tmp_path / "run")
    assert "search.patience: 2 trials in a row" in result.notes[0]
    done = sorted((row for row in result.rows if row.status == "complete"), key=lambda row: row.number)
    best = max(range(len(done)), key=lambda i: done[i].metrics["explained_variance"] if done[i].feasible else -9)
    assert len(done) == best + 3


def test_a_time_budget_ends_the_search_and_keeps_what_trains(tree: dict[str, Any], tmp_path: Path) -> None:
    tree["search"]["time_budget"] = 1e-6
    stopped = saesweep.run(tree, run_dir=tmp_path / "run")
    assert "search.time_budget" in stopped.notes[0]
    tree["search"]["time_budget"] = "1h"
    result = saesweep.run(tree, run_dir=tmp_path / "run")
    assert [row.status for row in result.rows] == ["complete"] * 4


def test_a_tokens_budget_starts_no_trial_that_it_cannot_finish(tree: dict[str, Any], tmp_path: Path) -> None:
    tree["search"]["tokens_budget"] = 35_000
    result = saesweep.run(tree, run_dir=tmp_path / "run")
    assert len(result.rows) == 3
    assert "search.tokens_budget is used up" in result.notes[0]


# ---------------------------------------------------------------- fixed lists


def test_a_fixed_list_runs_in_its_order_and_nothing_else(tree: dict[str, Any], tmp_path: Path) -> None:
    settings = [
        {"sae.architecture": "topk", "sae.k": 8, "lr": 3e-3},
        {"sae.architecture": "standard", "sae.l1_coefficient": 1.0, "lr": 1e-3},
        {"sae.architecture": "topk", "sae.k": 8, "lr": 1e-3},
    ]
    tree["search"] = {"sampler": "fixed", "fixed": settings, "pruner": "none"}
    result = saesweep.run(tree, run_dir=tmp_path / "run")
    assert [dict(row.params) for row in sorted(result.rows, key=lambda row: row.number)] == settings
    assert not any(row.is_baseline for row in result.rows)


# ---------------------------------------------------------------- warm start


def test_a_warm_start_learns_from_trials_in_the_space_and_keeps_them(tree: dict[str, Any], tmp_path: Path) -> None:
    tree["search"]["trials"] = 18
    tree["base"]["training_tokens"] = 5_120
    earlier = saesweep.run(tree, run_dir=tmp_path / "earlier")
    inside = [row for row in earlier.rows if 2e-3 <= row.lr <= 1e-2]
    assert 10 <= len(inside) < 18  # so that TPE models the space from its first trial on
    tree["name"], tree["search"]["trials"] = "later", 2
    tree["space"]["lr"] = {"float": [2e-3, 1e-2], "log": True}
    cold = saesweep.run(tree, run_dir=tmp_path / "cold")
    tree["search"]["warm_start"] = str(tmp_path / "earlier")
    notes: list[str] = []
    warm = saesweep.run(
        tree,
        run_dir=tmp_path / "warm",
        listeners=[lambda e: notes.extend(e.notes) if isinstance(e, RunStarted) else None],
    )
    assert any(f"{len(inside)} of 18 finished trials" in note for note in notes)
    assert [row.params for row in warm.rows] != [row.params for row in cold.rows]
    shutil.rmtree(tmp_path / "earlier")
    tree["search"]["trials"] = 3
    assert len(saesweep.run(tree, run_dir=tmp_path / "warm").rows) == 3


@pytest.mark.parametrize("content", ["{", "{}", '{"trials": [{"x": 1}], "note": ""}'])
def test_a_damaged_copy_of_a_warm_start_is_one_message(tree: dict[str, Any], tmp_path: Path, content: str) -> None:
    tree["search"]["warm_start"] = str(tmp_path / "nothing")
    with RunDirectory(tmp_path / "run"):
        (tmp_path / "run" / "warm_start.json").write_text(content)
    with pytest.raises(UserError, match=r"warm_start\.json: damaged.*start a new run with --run-dir"):
        saesweep.run(tree, run_dir=tmp_path / "run")


def test_a_warm_start_from_no_run_is_refused(tree: dict[str, Any], tmp_path: Path) -> None:
    tree["search"]["warm_start"] = str(tmp_path / "nothing")
    with pytest.raises(UserError, match=r"search\.warm_start: .*nothing is no run directory"):
        saesweep.run(tree, run_dir=tmp_path / "run")


def test_the_plan_counts_replicates_and_the_confirmation(tree: dict[str, Any]) -> None:
    once = plan(load_experiment(tree))
    tree["search"] |= {"replicates": 3, "confirm": {"top": 2, "replicates": 2, "training_tokens": "4x"}}
    more = plan(load_experiment(tree))
    assert more.sae_tokens_full == 3 * once.sae_tokens_full
    assert (once.confirm_sae_tokens, more.confirm_sae_tokens) == (0, 2 * 2 * 4 * 10_240)
    assert more.slots == 3
    assert "164k more to confirm" in "\n".join(more.lines())


# ---------------------------------------------------------------- samplers


@pytest.mark.parametrize(
    "sampler", ["optuna.samplers.NSGAIISampler", pytest.param("optuna.samplers.GPSampler", marks=pytest.mark.long)]
)
def test_a_sampler_of_optuna_by_its_class_path(tree: dict[str, Any], tmp_path: Path, sampler: str) -> None:
    tree["search"] = {"sampler": sampler, "trials": 5, "pruner": "none"}
    tree["base"]["training_tokens"] = 5_120
    first = saesweep.run(tree, run_dir=tmp_path / "run")
    assert first.status == "complete"
    tree["search"]["trials"] = 6  # built afresh from the study: it continues
    assert len({str(row.params) for row in saesweep.run(tree, run_dir=tmp_path / "run").rows}) == 6


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        ("optuna.samplers.NoSuchSampler", r"tiny\.yaml:\d+:\d+: search\.sampler: .*cannot be imported"),
        ("optuna.Study", r"search\.sampler: optuna\.Study is not an Optuna sampler"),
        ("optuna.samplers.PartialFixedSampler", r"search\.sampler: .*takes no seed"),
    ],
)
def test_a_sampler_that_cannot_serve_is_refused_before_anything_is_opened(
    tree: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sampler: str, message: str
) -> None:
    monkeypatch.setattr(run_setup, "open_source", lambda *_, **__: pytest.fail("the model would be loaded"))
    (tmp_path / "tiny.yaml").write_text(dump_yaml(tree).replace("pruner: none", f"sampler: {sampler}"))
    with pytest.raises(UserError, match=message):
        saesweep.run(tmp_path / "tiny.yaml", run_dir=tmp_path / "run")


def test_a_space_with_fewer_points_than_trials_repeats_none_before_it_must(
    tree: dict[str, Any], tmp_path: Path
) -> None:
    tree["space"] = {"sae.architecture": {"choice": ["topk"]}, "sae.k": {"choice": [2, 4, 8, 16]}}
    result = saesweep.run(tree, run_dir=tmp_path / "run")  # four trials
    assert sorted(row.params["sae.k"] for row in result.rows) == [2, 4, 8, 16]
