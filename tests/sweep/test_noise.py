"""Noise floor and brackets, the time to stop, replicates in memory planning."""

from dataclasses import replace
from typing import Any

import pytest

from saesweep.driver.noise import noise_floor, noise_notes
from saesweep.driver.patience import Patience
from saesweep.driver.standings import rank
from saesweep.driver.stopping import since_better, stop_reason
from saesweep.events import Row
from saesweep.specs import ObjectiveSpec, SearchSpec
from saesweep.worker.measure import mean_and_spread
from tests.sweep.test_ranking import LIMITED, PARETO, row

CE = ObjectiveSpec.model_validate({"minimize": "delta_ce"})


def replicated(number: int, delta_ce: float, spread: float, **changes: Any) -> Row:
    return replace(row(number, delta_ce=delta_ce), replicates=2, spread={"delta_ce": spread}, **changes)


def test_the_mean_and_the_sample_deviation_of_replicates() -> None:
    assert mean_and_spread([{"l0": 3.0}]) == ({"l0": 3.0}, {})
    mean, spread = mean_and_spread([{"l0": 1.0}, {"l0": 2.0}, {"l0": 6.0}])
    assert mean == {"l0": 3.0}
    assert spread == {"l0": pytest.approx(7**0.5)}
    mean, spread = mean_and_spread([{"l0": 1.0}, {"l0": float("nan")}])
    assert mean["l0"] != mean["l0"]


def test_replicated_baselines_give_the_noise_floor() -> None:
    rows = [
        replicated(0, 1.0, 0.3, is_baseline=True),
        replicated(1, 1.0, 0.4, is_baseline=True),
        replicated(2, 1.0, 9.0),
    ]
    assert noise_floor(rows, "delta_ce") == pytest.approx((0.125) ** 0.5)
    assert noise_floor(rows[2:], "delta_ce") == 9.0
    assert noise_floor([row(0, delta_ce=1.0)], "delta_ce") is None


def test_ranks_within_the_noise_share_a_bracket() -> None:
    # Two seeds each: the difference of two means has a standard error equal to the floor; brackets reach two of them.
    found = [replicated(n, value, 0.1) for n, value in enumerate([1.0, 1.15, 1.19, 1.25, 2.0])]
    rows = rank(found, CE)
    assert [(r.rank, r.tied_from_rank, r.tied_to_rank) for r in rows] == [
        (1, 1, 3),
        (2, 1, 3),
        (3, 1, 3),
        (4, 4, 4),
        (5, 5, 5),
    ]
    notes = noise_notes(rows, CE)
    assert "delta_ce 0.1" in notes[0]
    assert "trials 0, 1, 2 are statistically tied" in notes[1]


def test_one_seed_brackets_nothing() -> None:
    rows = rank([row(0, delta_ce=1.0), row(1, delta_ce=1.0)], CE)
    assert [r.tied_to_rank for r in rows] == [None, None]
    assert noise_notes(rows, CE) == []


def ended(objective: ObjectiveSpec, *trials: Row, **limits: Any) -> str | None:
    return stop_reason(SearchSpec(**limits), objective, trials, training_seconds=10.0)  # type: ignore[arg-type]


def test_patience_counts_trials_since_the_last_better_one() -> None:
    worse = [row(n, delta_ce=2.0 + n) for n in range(3)]
    assert since_better(worse, CE) == 2  # type: ignore[arg-type]
    assert since_better([*worse, row(3, delta_ce=1.0)], CE) == 0  # type: ignore[arg-type]
    assert since_better([*worse, row(3, "pruned")], CE) == 3  # type: ignore[arg-type]
    assert Patience(SearchSpec(patience=3), CE, lambda: worse).is_out() is None  # type: ignore[arg-type, return-value]
    assert "patience" in (Patience(SearchSpec(patience=2), CE, lambda: worse).is_out() or "")  # type: ignore[arg-type, return-value]


def test_before_the_first_feasible_trial_patience_waits() -> None:
    assert since_better([row(n, explained_variance=0.5, l0=90) for n in range(5)], LIMITED) == 0  # type: ignore[arg-type]


def test_a_new_point_of_the_front_is_an_improvement() -> None:
    front = [row(0, l0=10, delta_ce=1.0), row(1, l0=20, delta_ce=0.5)]
    assert since_better(front, PARETO) == 0  # type: ignore[arg-type]
    assert since_better([*front, row(2, l0=20, delta_ce=0.5), row(3, l0=30, delta_ce=0.6)], PARETO) == 2  # type: ignore[arg-type]


def test_an_infeasible_trial_reaches_no_target() -> None:
    assert ended(LIMITED, row(0, explained_variance=0.9, l0=90), target=0.8) is None
    assert "trial 0" in (ended(LIMITED, row(0, explained_variance=0.9, l0=10), target=0.8) or "")
    assert ended(LIMITED, row(0, explained_variance=0.7, l0=10), target=0.8) is None


def test_the_time_budget() -> None:
    assert ended(CE, time_budget=10.0) is not None
    assert ended(CE, time_budget="11s") is None
