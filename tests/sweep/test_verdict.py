"""The pruned search answers as the whole one does: limits are met, and no run that misses them passes for a success."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

import saesweep

LIMITED: dict[str, Any] = {
    "name": "limited",
    "base": {
        "model_name": None,
        "dataset_path": "builtin:synthetic",
        "training_tokens": 50_000,
        "train_batch_size_tokens": 512,
        "lr": 2e-3,
        "sae": {"architecture": "topk", "d_in": 32, "d_sae": 64},
    },
    "space": {"sae.k": {"int": [4, 16]}, "lr": {"float": [1e-3, 5e-3], "log": True}},
    "objective": {"maximize": "explained_variance", "subject_to": {"l0": {"max": 6}}},
    "evaluation": {"select_tokens": 2000, "test_tokens": 2000},
    "search": {"trials": 16, "seed": 0},
}
"""topk has its L0 from the first step; rungs that compare explained variance alone prune every k up to 6."""

OBJECTIVES: dict[str, dict[str, Any]] = {
    "best below a limit": LIMITED["objective"],
    "sparsest above a limit": {"minimize": "l0", "subject_to": {"explained_variance": {"min": 0.6}}},
    "front with a limit": {
        "pareto": [{"minimize": "l0"}, {"maximize": "explained_variance"}],
        "subject_to": {"l0": {"max": 6}},
    },
}


def run(tmp_path: Path, objective: dict[str, Any], seed: int, **search: Any) -> saesweep.Result:
    tree = copy.deepcopy(LIMITED)
    tree["objective"] = objective
    tree["base"]["seed"] = tree["search"]["seed"] = seed
    tree["search"].update(search)
    return saesweep.run(tree, run_dir=tmp_path / f"{seed}-{search.get('pruner', 'rung')}")


def check_feasible(result: saesweep.Result) -> Any:
    (best,) = [row for row in result.rows if row.number == result.best]
    assert result.exit_code == 0
    assert best.feasible
    assert best.rank == 1
    return best


@pytest.mark.long
@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_pruned_search_ends_within_the_limits(tmp_path: Path, name: str) -> None:
    result = run(tmp_path, OBJECTIVES[name], seed=0)
    check_feasible(result)
    assert any(row.status == "pruned" for row in result.rows)
    assert all("likely to end" in row.reason for row in result.rows if row.status == "pruned")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_twenty_seeds_lose_nothing_against_the_whole_search(tmp_path: Path, seed: int) -> None:
    pruned = check_feasible(run(tmp_path, OBJECTIVES["best below a limit"], seed))
    whole = check_feasible(run(tmp_path, OBJECTIVES["best below a limit"], seed, pruner="none"))
    # The sampler learns from other trials in the two, so that single seeds differ; never by more than this.
    assert pruned.metrics["explained_variance"] >= whole.metrics["explained_variance"] - 0.05


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sparsest above a limit", "front with a limit"])
@pytest.mark.parametrize("seed", range(10))
def test_the_other_objectives_end_within_the_limits_too(tmp_path: Path, name: str, seed: int) -> None:
    check_feasible(run(tmp_path, OBJECTIVES[name], seed))


def test_a_run_without_a_feasible_trial_fails_and_says_what_would_help(tmp_path: Path) -> None:
    result = run(tmp_path, {"maximize": "explained_variance", "subject_to": {"l0": {"max": 3}}}, seed=0, trials=4)
    assert result.exit_code == 1
    assert result.best is not None
    assert any("no feasible trial" in note and "a lower sae.k" in note for note in result.notes)
