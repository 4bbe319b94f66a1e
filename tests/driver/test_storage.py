"""`search.storage`: the study in a database that the experiment names."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial

import saesweep
from saesweep.errors import ExperimentError, UserError
from saesweep.events import BlockDone, Note, TrialEnded
from saesweep.experiment import load_experiment
from saesweep.study import rewind_in_database
from saesweep.study.storage import OWNER_KEY, close_storage, open_storage
from tests.driver.postgres import PASSWORD, PASSWORD_VARIABLE, Server, running_server, why_no_server
from tests.driver.test_several_workers import run, run_killed, sweep
from tests.engines.simulated import SimulatedEngine
from tests.reliability.conftest import few_trials
from tests.sweep.studies import snapshot


def stored_at(url: str) -> dict[str, Any]:
    tree = few_trials()
    tree["search"]["storage"] = url
    return tree


def test_a_study_elsewhere_is_the_same_study(tmp_path: Path) -> None:
    saesweep.run(few_trials(), run_dir=tmp_path / "own")
    saesweep.run(stored_at(f"sqlite:///{tmp_path}/elsewhere.db"), run_dir=tmp_path / "run")
    assert not (tmp_path / "run" / "study.db").exists()
    shutil.copy(tmp_path / "elsewhere.db", tmp_path / "run" / "study.db")
    assert snapshot(tmp_path / "run") == snapshot(tmp_path / "own")


def test_another_run_of_the_same_name_does_not_write_the_same_study(tmp_path: Path) -> None:
    tree = sweep(2)
    tree["search"]["storage"] = f"sqlite:///{tmp_path}/all.db"
    run(SimulatedEngine(1), tmp_path / "first", tree)
    with pytest.raises(UserError, match="the study 'several' there belongs to another run directory; choose another"):
        run(SimulatedEngine(1), tmp_path / "second", tree)


@pytest.mark.parametrize("is_ours", [True, False])
def test_several_workers_that_begin_leave_another_study_of_that_name_alone(tmp_path: Path, is_ours: bool) -> None:
    url, tree = f"sqlite:///{tmp_path}/all.db", sweep(3)
    tree["search"]["storage"] = url
    if is_ours:
        run(SimulatedEngine(1), tmp_path / "first", tree)
    else:
        study = optuna.create_study(study_name="several", storage=open_storage(url), direction="maximize")
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    message = "belongs to another run directory" if is_ours else "was not made by saesweep"
    with pytest.raises(UserError, match=message):
        run(SimulatedEngine(2), tmp_path / "second", tree)
    assert len(optuna.load_study(study_name="several", storage=open_storage(url)).trials) == 3


def test_several_workers_take_a_study_over_from_one(tmp_path: Path) -> None:
    tree = sweep()
    tree["search"]["storage"] = f"sqlite:///{tmp_path}/all.db"
    run_killed(SimulatedEngine(1, 2, 1, kill_after=7), tmp_path / "run", tree)
    assert run(SimulatedEngine(2, 2, 1), tmp_path / "run", tree).status == "complete"


@pytest.mark.parametrize("url", ["postgresql://me:hunter2@localhost/optuna", "sqlite.db"])
def test_a_password_in_the_file_and_a_path_are_refused(url: str) -> None:
    message = "holds a password, which would be written" if "://" in url else "takes a URL such as postgresql://"
    with pytest.raises(ExperimentError, match=message) as caught:
        load_experiment(stored_at(url))
    assert "hunter2" not in str(caught.value)


def test_a_password_is_neither_written_nor_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDY_PASSWORD", "hunter2-and-more")
    tree = stored_at("mysql+nodriver://me:${env:STUDY_PASSWORD}@localhost/optuna")
    with pytest.raises(UserError, match=r"not a storage that Optuna can open|no Optuna study") as caught:
        saesweep.run(tree, run_dir=tmp_path / "run")
    assert "hunter2" not in str(caught.value)
    files = [file for file in (tmp_path / "run").rglob("*") if file.is_file()]
    assert len(files) > 2
    assert not [file for file in files if b"hunter2" in file.read_bytes()]


def test_a_study_in_a_database_goes_back_to_a_checkpoint(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/all.db"
    study = optuna.create_study(study_name="mine", storage=open_storage(url))
    study.set_user_attr(OWNER_KEY, "me")
    for number in range(3):
        trial = study.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
        trial.report(0.5, 100)
        trial.report(0.4, 200)
        if number < 2:
            study.tell(trial, 0.1 * number)
    rewind_in_database(url, "mine", "another", {})
    assert len(study.trials) == 3
    rewind_in_database(url, "mine", "me", {0: None, 1: 100})
    again = optuna.load_study(study_name="mine", storage=open_storage(url))
    assert again.user_attrs == {OWNER_KEY: "me"}
    assert [(t.state.name, t.intermediate_values) for t in again.trials] == [
        ("COMPLETE", {100: 0.5, 200: 0.4}),
        ("RUNNING", {100: 0.5}),
    ]
    rewind_in_database(url, "mine", "me", {})
    assert optuna.get_all_study_names(open_storage(url)) == []


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    if (reason := why_no_server()) is not None:
        pytest.skip(reason)
    monkeypatch.setenv(PASSWORD_VARIABLE, PASSWORD)
    with running_server() as found:
        yield found


def trials_of(server: Server, name: str) -> list[FrozenTrial]:
    """Return the trials of the only study on a server."""
    storage = open_storage(server.open_url)
    try:
        assert optuna.get_all_study_names(storage) == [name]
        return optuna.load_study(study_name=name, storage=storage).trials
    finally:
        close_storage(storage)


def test_a_study_on_a_postgresql_server_that_is_restarted(server: Server, tmp_path: Path) -> None:
    restarts: list[float] = []

    def restart(event: Any) -> None:
        if isinstance(event, BlockDone) and event.block in (3, 9):
            server.stop()
            server.start()
            restarts.append(time.monotonic())

    result = saesweep.run(stored_at(server.url), run_dir=tmp_path / "run", listeners=[restart])
    saesweep.run(few_trials(), run_dir=tmp_path / "own")
    assert (result.status, len(restarts)) == ("complete", 2)
    own = snapshot(tmp_path / "own")
    found = {path: file for path, file in own["logs"].items()}
    assert {
        str(p.relative_to(tmp_path / "run")): p.read_text() for p in (tmp_path / "run").glob("trials/*/*.jsonl")
    } == found
    assert [(trial.number, trial.state.name) for trial in trials_of(server, "tiny")] == [
        (number, {1: "COMPLETE", 2: "PRUNED"}.get(state, state)) if isinstance(state, int) else (number, state)
        for number, state in own["study"]["trials"]
    ]
    assert not [f for f in (tmp_path / "run").rglob("*") if f.is_file() and b"hunter2" in f.read_bytes()]


def test_a_run_waits_for_a_server_that_is_away(server: Server, tmp_path: Path) -> None:
    """It is stopped after a block, and between two calls of the study, and comes back a second later."""
    timers: list[threading.Timer] = []

    def stop(event: Any) -> None:
        is_due = isinstance(event, BlockDone) and event.block == 3 and not timers
        if is_due or (isinstance(event, TrialEnded) and event.number == 4):
            for timer in timers:
                timer.join()
            server.stop()
            timers.append(threading.Timer(1.0, server.start))
            timers[-1].start()

    heard: list[str] = []
    tree = sweep()
    tree["search"]["storage"] = server.url

    def hear(event: Any) -> None:
        if isinstance(event, Note):
            heard.append(event.message)

    result = run(SimulatedEngine(2, 2, 1), tmp_path / "run", tree, hear, stop)
    assert result.status == "complete"
    own = run(SimulatedEngine(2, 2, 1), tmp_path / "own")
    assert {row.number: row.metrics for row in result.rows} == {row.number: row.metrics for row in own.rows}
    assert sum("does not answer" in message for message in heard) == len(timers) == 2
    assert sum("answers again" in message for message in heard) == 2
    trials = trials_of(server, "several")
    assert [trial.number for trial in trials] == list(range(9))
    assert {trial.state.name for trial in trials} <= {"COMPLETE", "PRUNED"}


def test_a_study_on_a_postgresql_server_continues_with_an_added_choice(server: Server, tmp_path: Path) -> None:
    tree = stored_at(server.url)
    tree["search"]["trials"] = 4
    first = saesweep.run(tree, run_dir=tmp_path / "run")
    before = trials_of(server, "tiny")
    tree["space"]["sae.architecture"]["choice"] = ["batchtopk", "topk"]
    del tree["space"]["sae.l1_coefficient"]
    with pytest.raises(UserError, match=r"space\.sae\.architecture is 'standard', which is outside choice"):
        saesweep.run(tree, run_dir=tmp_path / "run")
    tree = stored_at(server.url)
    tree["space"]["sae.architecture"]["choice"] = ["batchtopk", "topk", "standard"]
    result = saesweep.run(tree, run_dir=tmp_path / "run")
    assert (result.status, len(result.rows)) == ("complete", 6)
    assert {row.number: row.metrics for row in first.rows}.items() <= {r.number: r.metrics for r in result.rows}.items()
    after = trials_of(server, "tiny")
    assert [(t.values, t.user_attrs, t.intermediate_values, t.params["lr"]) for t in after[:4]] == [
        (t.values, t.user_attrs, t.intermediate_values, t.params["lr"]) for t in before
    ]
    assert after[4].params["sae.architecture"] == "batchtopk"
