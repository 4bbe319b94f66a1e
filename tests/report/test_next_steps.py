"""What the report advises, and that it advises nothing where nothing was found."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from saesweep.events import Row
from saesweep.report.data import read_run
from saesweep.report.next_steps import Step, next_steps
from tests.report.runs import TREE
from tests.report.test_verdict import row


def steps_of(folder: Path, rows: list[Row], tree: dict[str, Any] | None = None, **board: Any) -> dict[str, Step]:
    """Return the advice on a run of these trials, by the first words of what was found."""
    goals = ["minimize mse"] if tree is None else ["minimize l0", "maximize explained_variance"]
    tree = {**TREE, "objective": {"minimize": "mse"}} if tree is None else tree
    (folder / "experiment.yaml").write_text(yaml.safe_dump(tree))
    content = {"name": "a", "status": "complete", "metrics": [], "goals": goals, "best": 0, **board}
    (folder / "leaderboard.json").write_text(json.dumps({**content, "rows": [asdict(row) for row in rows]}))
    return {" ".join(step.finding.split()[:2]): step for step in next_steps(read_run(folder))}


def trial(number: int, **changes: Any) -> Row:
    params = {"sae.architecture": "topk", "sae.k": 8, "lr": 3e-3}
    params |= changes.pop("params", {})
    metrics = {"l0": 8.0, "mse": 1.0 + number, "mse_stderr": 0.01, **changes.pop("metrics", {})}
    return replace(
        row(number, changes.pop("architecture", "topk"), **metrics), **{"params": params, "replicates": 3} | changes
    )


ENOUGH = [trial(n) for n in range(3)]


def test_a_run_that_nothing_speaks_against_needs_nothing(tmp_path: Path) -> None:
    assert steps_of(tmp_path, ENOUGH) == {}


@pytest.mark.parametrize(
    ("params", "end", "line"),
    [
        ({"lr": 9.9e-3}, "upper", "space: {lr: {float: [0.001, 0.03], log: true}}"),
        ({"lr": 1.01e-3}, "lower", "space: {lr: {float: [0.000333, 0.01], log: true}}"),
        ({"sae.k": 32}, "upper", "space: {sae.k: {int: [2, 96], log: true}}"),
        ({"sae.k": 2}, "lower", "space: {sae.k: {int: [1, 32], log: true}}"),
    ],
)
def test_a_best_at_the_edge_of_the_space_asks_for_a_wider_range(
    tmp_path: Path, params: dict[str, Any], end: str, line: str
) -> None:
    step = steps_of(tmp_path, [trial(0, params=params), *ENOUGH[1:]])["The edge"]
    assert f"at the {end} end" in step.finding
    assert step.yaml == line
    assert yaml.safe_load(line)["space"]


def test_a_front_reaches_from_end_to_end_of_its_sparsity_but_not_of_other_ranges(tmp_path: Path) -> None:
    rows = [trial(n, params={"sae.k": k, "lr": 9.9e-3}, on_front=True) for n, k in enumerate((2, 8, 32))]
    found = steps_of(tmp_path, rows, TREE)
    assert "3 of the 3 SAEs of the front have lr at the upper end" in found["The edge"].finding
    rows = [replace(r, params={**r.params, "lr": 3e-3}) for r in rows]
    assert "The edge" not in steps_of(tmp_path, rows, TREE)


def test_a_loss_that_still_falls_asks_for_a_longer_run(tmp_path: Path) -> None:
    def logged(losses: list[float]) -> None:
        (tmp_path / "trials/0000").mkdir(parents=True, exist_ok=True)
        lines = [
            json.dumps({"tokens": 2048 * (i + 1), "kind": "train", "losses/mse_loss": loss})
            for i, loss in enumerate(losses)
        ]
        (tmp_path / "trials/0000/metrics.jsonl").write_text("\n".join(lines) + "\n")

    logged([1.0] * 10)
    assert "Still improving:" not in steps_of(tmp_path, ENOUGH)
    logged([1.0 - 0.05 * i for i in range(10)])
    assert "training_tokens: 4" in steps_of(tmp_path, ENOUGH)["Still improving:"].yaml


def test_a_difference_within_noise_asks_for_seeds(tmp_path: Path) -> None:
    rows = [trial(0), trial(1, metrics={"mse": 1.001}), trial(2)]
    assert "tied with trial 1" in steps_of(tmp_path, rows)["The best"].finding
    assert "confirm" in steps_of(tmp_path, [replace(r, replicates=1) for r in ENOUGH])["Every trial"].yaml


def test_few_trials_failures_dead_latents_and_a_run_that_has_not_ended_are_named(tmp_path: Path) -> None:
    rows = [
        trial(0, metrics={"dead_fraction": 0.5}, measured_at_tokens=10, dead_window_tokens=5),
        trial(1, architecture="batchtopk"),
        trial(2),
        replace(trial(3), status="failed", reason="NaN"),
    ]
    found = steps_of(tmp_path, rows)
    assert "batchtopk (1)" in found["Few finished"].finding
    assert "topk (2)" in found["Few finished"].finding
    assert "3" in found["1 trial"].finding
    assert found["1 trial"].yaml == "search: {retry_failed: 1}"
    assert "1 trial" not in steps_of(tmp_path, [*rows, replace(trial(4), retry_of=3)])
    assert "50% of" in found["50% of"].finding
    assert "run the same command again" in steps_of(tmp_path, rows, status="running")["The run"].advice


def test_a_run_without_its_file_is_advised_on_what_its_board_says(tmp_path: Path) -> None:
    steps_of(tmp_path, ENOUGH)
    (tmp_path / "experiment.yaml").unlink()
    assert next_steps(read_run(tmp_path)) == []
