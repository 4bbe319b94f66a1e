"""k that is annealed: what is trained, measured and judged on the way."""

from pathlib import Path
from typing import Any

import pytest

import saesweep
from saesweep.experiment import load_experiment
from saesweep.forecast import Course
from saesweep.planning.plan import plan


def annealed(tree: dict[str, Any], architecture: str) -> dict[str, Any]:
    """One trial whose k comes down from all latents over the first half."""
    sae = {**tree["base"]["sae"], "architecture": architecture, "k": 4, "k_start": 48, "k_anneal_steps": "50%"}
    return {
        "name": "annealed",
        "base": {**tree["base"], "sae": sae},
        "space": {},
        "objective": {"maximize": "explained_variance"},
        "evaluation": tree["evaluation"],
    }


@pytest.mark.parametrize("architecture", ["topk", "batchtopk"])
def test_the_last_value_counts_in_what_is_measured(tree: dict[str, Any], tmp_path: Path, architecture: str) -> None:
    one = annealed(tree, architecture)
    result = saesweep.run(one, run_dir=tmp_path / "run")
    assert result.rows[0].metrics["l0"] == pytest.approx(4, abs=0.4)
    del one["base"]["sae"]["k_start"], one["base"]["sae"]["k_anneal_steps"]
    plain = saesweep.run(one, run_dir=tmp_path / "plain")
    assert plain.rows[0].metrics["explained_variance"] != result.rows[0].metrics["explained_variance"]


def test_no_rung_judges_a_trial_before_k_has_its_last_value(tree: dict[str, Any]) -> None:
    run = load_experiment(annealed(tree, "topk")).base_run()
    steps = [run.total_steps * share // 10 for share in (1, 3, 6, 10)]
    assert Course.of(run, steps).first_rung == 2


def test_the_plan_says_how_k_changes(tree: dict[str, Any]) -> None:
    one = annealed(tree, "topk")
    one["space"] = {"sae.k_anneal_steps": {"choice": [0, "50%"]}}
    lines = plan(load_experiment(one)).lines()
    assert any("schedule: topk k 48 to 4 over" in line for line in lines), lines


def test_where_k_starts_is_read_by_trials_that_anneal_it(tree: dict[str, Any]) -> None:
    one = annealed(tree, "topk")
    one["space"] = {"sae.k_anneal_steps": {"choice": [0, "50%"]}, "sae.k_start": {"choice": [16, 48]}}
    experiment = load_experiment(one)
    assert experiment.n_trials == 3  # without annealing there is nothing to start from
    plain = experiment.resolve({"sae.k_anneal_steps": 0})
    assert (plain.sae.k, plain.sae.k_start) == (4, None)  # type: ignore[attr-defined]
