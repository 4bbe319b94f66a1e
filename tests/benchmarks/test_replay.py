"""The shipped table is what the shipped curves give; its forecasts are calibrated; the rules lose little on curves unknown to it."""

from __future__ import annotations

import json
import random
import statistics

import pytest

from benchmarks import replay
from benchmarks.curves.coverage import held, left_out
from benchmarks.curves.curves import CurveSet, load, shipped
from benchmarks.curves.fit import TABLE, fit
from saesweep.forecast import Table
from saesweep.scheduler import rungs
from saesweep.specs import SearchSpec


@pytest.fixture(scope="module")
def tables() -> list[tuple[CurveSet, Table]]:
    return list(left_out([load(path) for path in shipped()]))


def test_the_shipped_table_is_fitted_to_the_shipped_curves() -> None:
    curves = [curve for path in shipped() for curve in load(path).curves]
    made, kept = json.loads(json.dumps(fit(curves))), json.loads(TABLE.read_text())
    assert set(made) == set(kept)
    for kind, metrics in made.items():
        for metric, entry in metrics.items():
            assert entry["leads"] == kept[kind][metric]["leads"]
            for row, known in zip(entry["rows"], kept[kind][metric]["rows"], strict=True):
                assert row == pytest.approx(known, rel=2e-2, abs=1e-6), "run: python benchmarks/curves/fit.py"


@pytest.mark.parametrize("metric", ["explained_variance", "l0"])
def test_ninety_percent_intervals_hold_the_ends_of_left_out_sources(
    tables: list[tuple[CurveSet, Table]], metric: str
) -> None:
    cases = [
        case
        for own, table in tables
        for share in (0.1, 0.2, 0.4, 0.6)
        for by_family in held(own, table, metric, share).values()
        for case in by_family
    ]
    assert 0.85 <= statistics.fmean(cases) <= 0.97


@pytest.mark.parametrize("objective", ["limit", "sparsest", "front", "matched"])
def test_replayed_searches_stay_feasible_and_cost_less(
    tables: list[tuple[CurveSet, Table]], objective: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    regrets, seconds = [], []
    for own, table in tables:
        monkeypatch.setattr(rungs, "shipped_table", lambda table=table: table)
        curves = [c for c in own.curves if c.is_complete and c.length == 1.0]
        aim = replay.aim_of(objective, curves)
        if not replay.has_trials_for(curves, aim):
            continue
        for repeat in range(2):
            trials = replay.draw(curves, aim, 16, random.Random(repeat))
            policy, shares = replay.policy_of(aim, len(trials), SearchSpec(), curves[0].total_steps)
            state, _, spent = replay.replay(trials, aim, policy, shares)
            regret, infeasible, volume, _ = replay.judged(trials, aim, state)
            assert not infeasible
            assert {trial.status for trial in state.trials.values()} <= {"complete", "pruned"}
            regrets.append(1 - volume if volume is not None else regret)
            seconds.append(spent)
    assert statistics.median(regrets) <= 0.02
    assert statistics.fmean(seconds) < 1.0
