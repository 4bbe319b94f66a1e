"""Small runs on synthetic activations, and what others would look like that were stopped at another moment."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

TREE: dict[str, Any] = {
    "name": "tiny",
    "base": {
        "model_name": None,
        "hook_name": "synthetic",
        "dataset_path": "builtin:synthetic",
        "training_tokens": 20_480,
        "train_batch_size_tokens": 256,
        "lr": 3e-3,
        "device": "cpu",
        "sae": {"d_in": 32, "d_sae": 128},
    },
    "space": {
        "sae.architecture": {"choice": ["topk", "batchtopk"]},
        "sae.k": {"int": [2, 32], "log": True},
        "lr": {"float": [1e-3, 1e-2], "log": True},
    },
    "objective": {"pareto": [{"minimize": "l0"}, {"maximize": "explained_variance"}]},
    "evaluation": {"select_tokens": 2048, "test_tokens": 2048},
    "search": {
        "trials": 12,
        "stratify": "sae.architecture",
        "rungs": ["12.5%"],
        "min_rung_steps": 5,
        "min_probability": 0.3,
        "min_per_architecture": 4,  # importances need eight finished trials
    },
    "cohort": {"size": 4},
}
MATCHED: dict[str, Any] = {
    **TREE,
    "name": "matched",
    "space": {"sae.architecture": {"choice": ["topk", "batchtopk", "gated"]}},
    "by_architecture": {"gated": {"sae.l1_coefficient": 1.0}},
    "objective": {"minimize": "mse", "matched": {"l0": [4, 8, 16]}},
    "search": {"sampler": "grid", "pruner": "none"},
    "cohort": {"size": 9},
}


def changed(run_dir: Path, to: Path, change: Callable[[dict[str, Any]], None], *, with_best: bool = True) -> Path:
    """Copy a run directory and change its leaderboard."""
    shutil.copytree(run_dir, to)
    file = to / "leaderboard.json"
    board = json.loads(file.read_text())
    change(board)
    file.write_text(json.dumps(board))
    if not with_best:
        shutil.rmtree(to / "best")
    return to


def unfinished(board: dict[str, Any]) -> None:
    """The moment before any trial has finished or been measured."""
    board |= {"status": "running", "best": None, "test_metrics": {}, "notes": []}
    for row in board["rows"]:
        row |= {"status": "training", "rank": None, "metrics": {}, "on_front": False, "reason": ""}


def one_finished(board: dict[str, Any]) -> None:
    """All trials but the best were pruned."""
    for row in board["rows"]:
        if row["number"] != board["best"]:
            row |= {"status": "pruned", "rank": None, "on_front": False, "reason": "it would not do"}
