"""The study as a sweep uses it: asks ahead of tells, restarts, replays, results."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from saesweep.errors import UserError
from saesweep.space import Space
from saesweep.study import Study, TrialRecord

from .spaces import SPACE, loss, open_study, parameter

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


def test_a_study_continues_with_a_wider_range_and_searches_its_new_part(tmp_path: Path) -> None:
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


def test_optuna_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    sweep(tmp_path / "s.db")
    assert capfd.readouterr() == ("", "")
