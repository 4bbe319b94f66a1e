"""What a study suggests: samplers, strata, baselines, grids, and what they learn from."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import pytest

from saesweep.errors import UserError
from saesweep.space import Space, trial_limit
from saesweep.study import ExpectedEnd

from .spaces import LR, SPACE, loss, open_study, parameter
from .test_study import STRATA


def test_suggestions_of_a_cohort_lie_apart(tmp_path: Path) -> None:
    """Running trials count (constant liar): ten asks without a tell do not crowd where the best trials are."""
    space = Space(tuple(parameter(p, float=(-10.0, 10.0)) for p in ("x", "y")))
    with open_study(tmp_path / "s.db", space=space) as study:
        for number in range(20):
            p = study.ask(number)
            study.tell(number, "complete", [p["x"] ** 2 + p["y"] ** 2])
        points = [study.ask(number) for number in range(20, 30)]
    nearest = [min(math.dist(p.values(), q.values()) for q in points if q is not p) for p in points]
    assert sorted(nearest)[5] > 1.0


def test_pruned_trials_teach_and_the_search_improves(tmp_path: Path) -> None:
    with open_study(tmp_path / "s.db") as study:
        for number in range(40):
            value = loss(study.ask(number))
            study.report(number, 10, [value])
            if value > 1.5:
                study.tell(number, "pruned")
            else:
                study.tell(number, "complete", [value])
        values = [r.rungs[10][0] for r in study.trials()]
    assert sum(values[30:]) / 10 < sum(values[:10]) / 10


def test_strata_do_not_see_each_other(tmp_path: Path) -> None:
    """What another stratum measures changes no suggestion of this one."""
    suggestions = []
    for sign in (1, -1):
        with open_study(tmp_path / f"{sign}.db") as study:
            for number in range(14):
                params = study.ask(number, STRATA[number % 2])
                value = loss(params)
                study.tell(number, "complete", [value if number % 2 == 0 else sign * value])
            suggestions.append((study.ask(14, STRATA[0]), study.ask(15, STRATA[1])))
    assert suggestions[0][0] == suggestions[1][0]
    assert suggestions[0][1] != suggestions[1][1]
    assert suggestions[0][0]["sae.architecture"] == "topk"
    assert set(suggestions[0][0]) == {"sae.architecture", "sae.k", "lr"}


def test_baselines_come_first_and_what_they_leave_out_is_suggested(tmp_path: Path) -> None:
    baselines = ({"sae.architecture": "topk", "sae.k": 16, "lr": 3e-4}, {"sae.architecture": "gated"})
    with open_study(tmp_path / "s.db", baselines=baselines) as study:
        assert study.ask(0, STRATA[0]) == {"sae.architecture": "topk", "sae.k": 16, "lr": 3e-4}
        with pytest.raises(UserError, match=r"baselines\[1\] does not belong"):
            study.ask(1, STRATA[0])
        second = study.ask(1, STRATA[2])
        assert second["sae.architecture"] == "gated"
        assert 0.1 <= second["sae.l1_coefficient"] <= 2.0
        assert study.ask(2) != study.ask(0)


def test_baseline_that_contradicts_itself(tmp_path: Path) -> None:
    for index, (baseline, message) in enumerate(
        [
            ({"sae.architecture": "gated", "sae.k": 16}, "sae.k: given, but not active"),
            ({"sae.architecture": "gated", "sae.l1_coefficient": 20.0}, r"20\.0 is outside float \[0\.1, 2\]"),
        ]
    ):
        with open_study(tmp_path / f"{index}.db", baselines=(baseline,)) as study:
            with pytest.raises(UserError, match=message):
                study.ask(0)
            assert study.trials() == []


def test_discrete_space_repeats_no_trial_before_it_must(tmp_path: Path) -> None:
    space = Space((parameter("x", choice=(1, 2, 3, 4)),))
    with open_study(tmp_path / "s.db", space=space, sampler="random") as study:
        values = [study.ask(number)["x"] for number in range(6)]
    assert sorted(values[:4]) == [1, 2, 3, 4]


def test_empty_space_is_one_run(tmp_path: Path) -> None:
    with open_study(tmp_path / "s.db", space=Space(())) as study:
        assert study.ask(0) == {}
        study.tell(0, "complete", [1.0])
        assert [trial.values for trial in study.trials()] == [(1.0,)]


def test_grid_visits_every_point_once_within_each_stratum(tmp_path: Path) -> None:
    on_grid = {"sae.architecture": "topk", "sae.k": 8, "lr": 1e-4}
    off_grid = {"sae.architecture": "topk", "sae.k": 16}
    with open_study(tmp_path / "s.db", sampler="grid", baselines=(on_grid, off_grid)) as study:
        limits = [trial_limit(SPACE, "grid", (on_grid, off_grid), stratum) for stratum in STRATA]
        assert limits == [5, 6, 2]
        assert trial_limit(SPACE, "grid", (on_grid, off_grid)) == 13
        strata = [s for s, limit in zip(STRATA, limits, strict=True) for _ in range(limit or 0)]
        points = [study.ask(number, stratum) for number, stratum in enumerate(strata)]
        assert len({str(sorted(p.items())) for p in points}) == 13
        assert points[0] == on_grid
        assert points[1] == {**off_grid, "lr": 1e-4}
        assert {p["sae.l1_coefficient"] for p in points if p["sae.architecture"] == "standard"} == {1.0, 5.0, 25.0}
        with pytest.raises(UserError, match="no point left"):
            study.ask(13, STRATA[0])
    assert trial_limit(SPACE, "tpe", (on_grid,)) is None


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        ("bayes", "not tpe, random, grid, or a class path"),
        ("optuna.samplers.NoSuchSampler", "cannot be imported"),
        ("no_such_module.Sampler", "cannot be imported"),
        ("optuna.Study", "not an Optuna sampler"),
        ("optuna.samplers.GridSampler", "use `sampler: grid`"),
        ("optuna.samplers.QMCSampler", "cannot resume after a restart"),
    ],
)
def test_unknown_samplers(tmp_path: Path, sampler: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_study(tmp_path / "s.db", sampler=sampler)
    assert not (tmp_path / "s.db").exists()


def test_sampler_that_lacks_a_package_says_so_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cmaes", None)
    with pytest.raises(UserError, match="CmaEsSampler needs a package that is not installed"):
        open_study(tmp_path / "s.db", sampler="optuna.samplers.CmaEsSampler")


@pytest.mark.parametrize("sampler", ["tpe", "random"])
@pytest.mark.parametrize("strata", [True, False])
def test_no_point_of_a_finite_space_is_suggested_twice(tmp_path: Path, sampler: str, strata: bool) -> None:
    k = parameter("sae.k", int=(4, 16), step=4)
    lr = parameter("lr", choice=(1e-4, 1e-3), when={"sae.architecture": ("topk", "standard")})
    architecture = parameter("sae.architecture", choice=("topk", "standard", "gated"))
    space = Space((architecture, k, lr))
    with open_study(tmp_path / "s.db", space=space, sampler=sampler) as study:
        limits = [trial_limit(space, sampler, (), stratum) for stratum in STRATA]
        assert limits == [8, 8, 4]
        assert trial_limit(space, sampler, ()) == 20
        order = [s for s, n in zip(STRATA, limits, strict=True) for _ in range(n or 0)] if strata else [None] * 20
        seen = []
        for number, stratum in enumerate(order):
            seen.append(study.ask(number, stratum))
            study.tell(number, "complete", [float(seen[-1]["sae.k"])])
    assert len({str(sorted(params.items())) for params in seen}) == 20


def test_the_sampler_finds_the_limits_from_pruned_trials_alone(tmp_path: Path) -> None:
    """Scores grow with k, and only k <= 6 of 4 to 200 is feasible: every trial so far was pruned for the limit."""

    def mean_of_last(name: str, told: bool) -> float:
        k = parameter("sae.k", int=(4, 200))
        asked = []
        with open_study(tmp_path / name, space=Space((k, LR)), directions=("maximize",)) as study:
            for number in range(30):
                asked.append(study.ask(number)["sae.k"])
                study.report(number, 1000, [float(asked[-1])])
                end = ExpectedEnd((float(asked[-1]),), {"l0_max": asked[-1] / 6 - 1})
                study.tell(number, "pruned", attrs={"expected": end.to_json()} if told else {})
        return sum(asked[-10:]) / 10

    assert mean_of_last("told.db", told=True) < mean_of_last("untold.db", told=False) / 2


def test_the_sampler_learns_from_what_running_trials_are_expected_to_be(tmp_path: Path) -> None:
    def suggested(name: str, expected: dict[int, ExpectedEnd]) -> dict[str, Any]:
        with open_study(tmp_path / name, sampler="tpe") as study:
            for number in range(14):
                study.ask(number)
            return study.ask(14, expected=expected)

    ends = {number: ExpectedEnd((float(number),), {}) for number in range(14)}
    assert suggested("a.db", ends) == suggested("b.db", ends)
    assert suggested("c.db", {}) != suggested("a2.db", ends)


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_settings_that_are_refused_are_not_suggested(tmp_path: Path, sampler: str) -> None:
    k = parameter("sae.k", int=(4, 64))
    with open_study(tmp_path / "study.db", space=Space((k, LR)), sampler=sampler) as study:
        asked = [study.ask(number, refuses=lambda params: params["sae.k"] > 6)["sae.k"] for number in range(20)]
    assert max(asked) <= 6


def test_what_is_refused_is_suggested_where_nothing_else_is_left(tmp_path: Path) -> None:
    k = parameter("sae.k", int=(4, 8))
    with open_study(tmp_path / "study.db", space=Space((k,)), sampler="random") as study:
        asked = []
        for number in range(5):
            asked.append(study.ask(number, refuses=lambda params: params["sae.k"] > 6)["sae.k"])
            study.tell(number, "complete", [1.0])
    assert set(asked[:3]) == {4, 5, 6}
    assert set(asked) == {4, 5, 6, 7, 8}
