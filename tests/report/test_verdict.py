"""Who is compared with the winner, and what counts as noise."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from saesweep.display.saved import Leaderboard
from saesweep.events import ReferenceRow, Row
from saesweep.report.data import RunData
from saesweep.report.winner import comparisons
from saesweep.runs import RunDirectory


def row(number: int, architecture: str, **metrics: float) -> Row:
    return Row(
        number=number,
        architecture=architecture,
        sparsity="",
        params={},
        lr=1e-3,
        hook="h",
        status="complete",
        tokens=1,
        total_tokens=1,
        metrics=metrics,
    )


def run_of(rows: list[Row], *goals: str, best: int = 0) -> RunData:
    board: Any = Leaderboard(
        name="a",
        status="complete",
        rows=tuple(rows),
        metrics=(),
        goals=goals,
        best=best,
        test_metrics={},
        notes=(),
        data={},
    )
    return RunData(
        directory=RunDirectory(Path("r")), board=board, metrics={}, stays=[], rates=[], seconds=0.0, starts=1
    )


def test_on_a_front_the_nearest_l0_is_compared() -> None:
    rows = [
        row(0, "topk", l0=32, delta_ce=0.20),
        row(1, "gated", l0=300, delta_ce=0.01),
        row(2, "gated", l0=40, delta_ce=0.30),
        row(3, "topk", l0=8, delta_ce=0.9),
    ]
    found = {c.other.number: c for c in comparisons(run_of(rows, "minimize l0", "minimize delta_ce"))}
    assert set(found) == {2, 3}
    assert found[2].difference == pytest.approx(0.1)
    assert found[2].is_best_better


def test_with_matched_l0_other_targets_are_not_compared() -> None:
    rows = [
        replace(row(0, "topk", mse=0.3), target_l0=16.0),
        replace(row(1, "gated", mse=0.2), target_l0=32.0),
        replace(row(2, "gated", mse=0.4), target_l0=16.0),
        replace(row(3, "standard", mse=0.1), target_l0=32.0),
    ]
    assert [c.other.number for c in comparisons(run_of(rows, "minimize mse"))] == [2]


def test_beside_the_table_of_matched_l0_only_references_are_compared() -> None:
    rows = [replace(row(number, "topk", mse=0.3 + number, mse_stderr=0.01), target_l0=16.0) for number in range(2)]
    published = ReferenceRow(
        **{**vars(rows[0]), "status": "reference", "metrics": {"mse": 0.2}}, source="theirs", d_sae=8
    )
    entries: Any = ["what is behind, by paired errors"]
    run = run_of(rows, "minimize mse at L0 16")
    run = replace(run, board=replace(run.board, matched=entries, references=(published,)))
    (found,) = comparisons(run)
    assert (found.other, found.is_best_better) == (published, False)


def test_with_one_goal_each_architectures_best_is_compared() -> None:
    rows = [
        row(0, "topk", explained_variance=0.9),
        row(1, "gated", explained_variance=0.8),
        row(2, "gated", explained_variance=0.7),
    ]
    (found,) = comparisons(run_of(rows, "maximize explained_variance"))
    assert (found.other.number, found.is_best_better) == (1, True)
    assert not found.is_noise  # no standard error is known


def test_a_difference_below_two_standard_errors_is_noise() -> None:
    rows = [
        row(0, "topk", delta_ce=0.200, delta_ce_stderr=0.01),
        row(1, "gated", delta_ce=0.225, delta_ce_stderr=0.01),
        row(2, "standard", delta_ce=0.235, delta_ce_stderr=0.01),
    ]
    found = {c.other.number: c.is_noise for c in comparisons(run_of(rows, "minimize delta_ce"))}
    assert found == {1: True, 2: False}


def test_without_a_winner_nothing_is_compared() -> None:
    assert comparisons(run_of([row(0, "topk", l0=1)], "minimize l0", best=7)) == []
