"""The study as a sweep uses it: asks ahead of tells, restarts, replays, results."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from saesweep.errors import UserError
from saesweep.space import Space, trial_limit
from saesweep.study import ExpectedEnd, Study, TrialRecord

from .spaces import LR, SPACE, loss, open_study, parameter

STRATA = [{"sae.architecture": a} for a in ("topk", "standard", "gated")]


def block(study: Study, start: int, n: int = 4, strata: bool = True) -> None:
    """One lockstep cohort: all asks, all reports, all tells; every fourth trial is pruned."""
    asked = {number: study.ask(number, STRATA[number % 3] if strata else None) for number in range(start, start + n)}
    for number, params in asked.items():
        study.report(number, 1000, [loss(params) + 1])
    for number, params in asked.items():
        if number % 4 == 3:
            study.tell(number, "pruned", attrs={"reason": "rung"})
        else:
            study.tell(number, "complete", [loss(params)], constraints={"l0_max": 10.0 - number})


def sweep(path: Path, *, trials: int = 20, reopen: bool = False, strata: bool = True, **changes: Any) -> list[Any]:
    """Run trials, opening the study anew for each block if asked."""
    study = open_study(path, **changes)
    for start in range(0, trials, 4):
        if reopen:
            study.close()
            study = open_study(path, **changes)
        block(study, start, strata=strata)
    records = study.trials()
    study.close()
    return records


@pytest.mark.parametrize(
    ("sampler", "strata"), [("tpe", True), ("tpe", False), ("random", True), ("optuna.samplers.NSGAIISampler", False)]
)
def test_same_seed_same_study_and_a_restart_changes_nothing(tmp_path: Path, sampler: str, strata: bool) -> None:
    first = sweep(tmp_path / "a.db", sampler=sampler, strata=strata)
    assert sweep(tmp_path / "b.db", sampler=sampler, strata=strata, reopen=True) == first
    other = sweep(tmp_path / "c.db", trials=4, sampler=sampler, strata=strata, seed=8)
    assert [r.params for r in other] != [r.params for r in first[:4]]
    assert len({str(r.params) for r in first}) == 20


def test_restart_between_any_two_asks_gives_the_same(tmp_path: Path) -> None:
    with open_study(tmp_path / "a.db") as study:
        block(study, 0, 12)
        expected = [study.ask(number, STRATA[number % 3]) for number in range(12, 20)]
    with open_study(tmp_path / "b.db") as study:
        block(study, 0, 12)
    for number in range(12, 20):
        with open_study(tmp_path / "b.db") as study:
            assert study.ask(number, STRATA[number % 3]) == expected[number - 12]


class Killed(Exception):
    """Stands for SIGKILL: the process is gone between two calls."""


def mortal(study: Study, calls: int) -> Callable[[], None]:
    """Let the study die after some number of calls that change it."""
    left = [calls]

    def wrap(name: str) -> None:
        method = getattr(study, name)

        def dying(*args: Any, **kwargs: Any) -> Any:
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            return method(*args, **kwargs)

        setattr(study, name, dying)

    for name in ("ask", "report", "tell"):
        wrap(name)
    return study.close


def blocks(study: Study) -> None:
    """All blocks after the first."""
    for start in range(4, 20, 4):
        block(study, start)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> list[TrialRecord]:
    """Five blocks without a kill."""
    with open_study(tmp_path_factory.mktemp("reference") / "s.db") as study:
        block(study, 0)
        blocks(study)
        return study.trials()


@pytest.mark.parametrize(  # at an ask, at a report and at a tell
    "calls", [0, 17, 23, *(pytest.param(calls, marks=pytest.mark.long) for calls in (5, 29, 35))]
)
def test_replay_from_a_checkpoint_after_a_kill_gives_the_reference_study(
    tmp_path: Path, calls: int, reference: list[TrialRecord]
) -> None:
    """The checkpoint is older than the study: everything since is replayed, wherever the kill came."""
    study = open_study(tmp_path / "killed.db")
    block(study, 0)
    close = mortal(study, calls)
    with pytest.raises(Killed):
        blocks(study)
    close()
    with open_study(tmp_path / "killed.db") as study:
        blocks(study)
        assert study.trials() == reference


def test_kill_between_a_constraint_and_the_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_study(tmp_path / "s.db") as study:
        study.ask(0)
        with monkeypatch.context() as patch:
            patch.setattr(optuna.Study, "tell", lambda *args, **kwargs: (_ for _ in ()).throw(Killed))
            with pytest.raises(Killed):
                study.tell(0, "complete", [1.0], constraints={"l0_max": 2.0}, attrs={"l0": 66.0})
    with open_study(tmp_path / "s.db") as study:
        with pytest.raises(RuntimeError, match=r"l0_max was 2\.0 before, now 3\.0"):
            study.tell(0, "complete", [1.0], constraints={"l0_max": 3.0})
        study.tell(0, "complete", [1.0], constraints={"l0_max": 2.0}, attrs={"l0": 66.0})
        assert study.trials()[0].constraints == {"l0_max": 2.0}


def test_replay_that_differs_is_refused(tmp_path: Path) -> None:
    with open_study(tmp_path / "s.db") as study:
        study.ask(0)
        study.ask(1)
        study.report(0, 10, [0.5])
        study.report(0, 10, [0.5])
        with pytest.raises(RuntimeError, match=r"\(0\.5,\) before, now \(0\.25,\)"):
            study.report(0, 10, [0.25])
        study.tell(0, "complete", [0.125])
        study.tell(0, "complete", [0.125])
        with pytest.raises(RuntimeError, match=r"0\.125.*0\.0625"):
            study.tell(0, "complete", [0.0625])
        with pytest.raises(RuntimeError, match=r"complete.*pruned"):
            study.tell(0, "pruned")
        study.report(1, 10, [math.nan])
        study.report(1, 10, [math.nan])
        study.tell(1, "pruned")
        study.tell(1, "pruned")
        with pytest.raises(RuntimeError, match="None before"):
            study.report(1, 20, [1.0])


@pytest.mark.parametrize(
    "call",
    [
        lambda s: s.ask(2),
        lambda s: s.report(0, 10, [1.0, 2.0]),
        lambda s: s.report(5, 10, [1.0]),
        lambda s: s.tell(0, "complete"),
        lambda s: s.tell(0, "pruned", [1.0]),
        lambda s: s.tell(0, "complete", [math.nan]),
        lambda s: s.tell(0, "complete", [math.inf]),
    ],
)
def test_calls_that_make_no_sense_are_bugs(tmp_path: Path, call: Callable[[Study], object]) -> None:
    with open_study(tmp_path / "s.db") as study:
        study.ask(0)
        with pytest.raises(ValueError):
            call(study)


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


def optunas_best(file: Path) -> list[int]:
    """What Optuna itself makes of a study: its best feasible trials."""
    storage = optuna.storages.RDBStorage(f"sqlite:///{file}")
    numbers = [trial.number for trial in optuna.load_study(study_name="test", storage=storage).best_trials]
    storage.remove_session()
    storage.engine.dispose()
    return sorted(numbers)


def test_optuna_knows_which_trials_are_feasible(tmp_path: Path) -> None:
    with open_study(tmp_path / "s.db", directions=("maximize",)) as study:
        for number, (value, violation) in enumerate([(0.9, 5.0), (0.7, 0.5)]):
            study.ask(number)
            study.tell(number, "complete", [value], constraints={"l0_max": violation, "dead_max": -1.0})
        study.ask(2)
        study.tell(2, "pruned")
        assert optunas_best(tmp_path / "s.db") == []
        for number, value in ((3, 0.5), (4, 0.6)):
            study.ask(number)
            study.tell(number, "complete", [value], constraints={"l0_max": 0.0})
        assert optunas_best(tmp_path / "s.db") == [4]


def test_pareto_front_with_prunes_and_reports(tmp_path: Path) -> None:
    with open_study(tmp_path / "s.db", directions=("minimize", "maximize")) as study:
        results = [(1.0, 1.0), (2.0, 2.0), (2.0, 1.5), (0.5, 3.0), (3.0, 9.0)]
        for number in range(16):
            study.ask(number, STRATA[number % 3])
            study.report(number, 10, (float(number), 1.0))
            if number >= len(results):
                study.tell(number, "pruned")
            else:
                violation = 1.0 if number == 3 else -1.0
                study.tell(number, "complete", results[number], constraints={"c": violation})
        assert optunas_best(tmp_path / "s.db") == [0, 1, 4]
        assert study.trials()[7].rungs == {10: (7.0, 1.0)}
        assert study.trials()[7].attrs == {}
        reopened = study.trials()
        nxt = study.ask(16, STRATA[1])
    with open_study(tmp_path / "s.db", directions=("minimize", "maximize")) as study:
        assert study.trials()[:16] == reopened
        assert study.ask(16, STRATA[1]) == nxt


def test_file_opens_with_plain_optuna(tmp_path: Path) -> None:
    with open_study(tmp_path / "study.db") as study:
        block(study, 0, 6)
    storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path / 'study.db'}")
    plain = optuna.load_study(study_name="test", storage=storage)
    assert [t.state.name for t in plain.trials] == ["COMPLETE"] * 3 + ["PRUNED"] + ["COMPLETE"] * 2
    assert plain.trials[1].params.keys() == {"sae.architecture", "lr", "sae.l1_coefficient|sae.architecture=standard"}
    assert plain.trials[3].user_attrs == {"reason": "rung"}
    storage.remove_session()
    storage.engine.dispose()


def test_other_experiment_is_refused_with_what_changed(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with open_study(path) as study:
        block(study, 0, 6)
    open_study(path).close()
    other = parameter("lr", float=(1e-4, 1.0), log=True)
    for change, message in [
        ({"space": Space((*SPACE.parameters[:-1], other))}, r"space.lr: was .*1e-05.*, is .*0.0001"),
        ({"space": Space(SPACE.parameters[:-1])}, "space.lr: removed"),
        ({"seed": 8}, "search.seed: was 7, is 8"),
        ({"directions": ("maximize",)}, "search.directions"),
        ({"fingerprint": "g"}, "fingerprint f, now g"),
    ]:
        with pytest.raises(UserError, match=message):
            open_study(path, **change)


def test_a_wider_range_goes_on_and_its_new_part_is_searched(tmp_path: Path) -> None:
    with open_study(tmp_path / "s.db") as study:
        block(study, 0, 12)
        before = study.trials()
    wider = parameter("lr", float=(1e-6, 1.0), log=True)
    space = Space((*SPACE.parameters[:-1], wider))
    with open_study(tmp_path / "s.db", space=space) as study:
        assert study.trials() == before
        block(study, 12, 12)
        found = [record.params["lr"] for record in study.trials()[12:]]
    assert any(not 1e-5 <= lr <= 1e-2 for lr in found)
    with pytest.raises(UserError, match=r"(?s)space\.lr: was .*, is .*trials? [0-9, ]+: space.lr is "):
        open_study(tmp_path / "s.db")  # narrower: trials lie outside


def test_file_that_is_no_study(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    path.write_bytes(b"this is no database, but long enough to be read as one" * 40)
    before = path.read_bytes()
    with pytest.raises(UserError, match="the study is damaged: file is not a database; restore it"):
        open_study(path)
    assert path.read_bytes() == before


def test_study_of_someone_else(tmp_path: Path) -> None:
    storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path / 's.db'}")
    optuna.create_study(storage=storage, study_name="test").ask()
    storage.remove_session()
    storage.engine.dispose()
    with pytest.raises(UserError, match="not made by saesweep"):
        open_study(tmp_path / "s.db")


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


def test_optuna_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    sweep(tmp_path / "s.db")
    assert capfd.readouterr() == ("", "")


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
