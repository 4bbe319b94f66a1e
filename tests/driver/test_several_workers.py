"""The loop with several workers: every trial ends once, whoever reports first, whoever is lost, and whenever it is killed."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import saesweep
from saesweep.driver import replacing, runner
from saesweep.driver.replacing import NoWorkerLeft
from saesweep.events import Event, TrialEnded, WorkerNews
from tests.engines.scripted import made_up_sweep
from tests.engines.simulated import Killed, SimulatedEngine

TOTAL_TOKENS = 2560
MANY = settings(max_examples=4, deadline=None, phases=(Phase.generate,), derandomize=True)


def sweep(n_trials: int = 9, **search: Any) -> dict[str, Any]:
    return {
        **made_up_sweep("several", TOTAL_TOKENS),
        "objective": {"maximize": "explained_variance"},
        "evaluation": {"select_tokens": 256, "test_tokens": 256},
        "search": {"trials": n_trials, "rungs": ["25%", "50%"], "min_rung_steps": 5, "min_probability": 0.2, **search},
        "cohort": {"block_tokens": 320},
    }


class Heard:
    """Notes what became of the trials."""

    def __init__(self) -> None:
        self.ended: list[tuple[int, str]] = []
        self.workers: list[WorkerNews] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, TrialEnded):
            self.ended.append((event.number, event.status))
        if isinstance(event, WorkerNews):
            self.workers.append(event)


@contextmanager
def several_workers(engine: SimulatedEngine) -> Iterator[None]:
    """Let runs open this engine."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(runner, "open_engine", lambda *_: engine)
        patched.setattr(replacing, "_REQUEST_SECONDS", 0.0)
        yield


def run(engine: SimulatedEngine, folder: Path, tree: dict[str, Any] | None = None, *listeners: Any) -> Any:
    with several_workers(engine):
        return saesweep.run(tree or sweep(), run_dir=folder, listeners=listeners)


def run_killed(*arguments: Any) -> None:
    """Run until the driver is killed, or to the end where that comes first."""
    with suppress(Killed):
        run(*arguments)


def facts(folder: Path) -> list[Any]:
    """What was decided: the rows of the board, but for the rank, in number order."""
    rows = json.loads((folder / "leaderboard.json").read_text())["rows"]
    return sorted((row["number"], row["status"], row["tokens"], row["joined_at_tokens"]) for row in rows)


def check_ended_once(folder: Path, result: Any, n_trials: int = 9) -> None:
    assert result.status == "complete"
    assert sorted(row.number for row in result.rows) == list(range(n_trials))
    assert {row.status for row in result.rows} <= {"complete", "pruned", "failed"}
    for row in result.rows:
        record = json.loads((folder / "trials" / f"{row.number:04d}" / "trial.json").read_text())
        assert record["status"] == row.status
        log = folder / "trials" / f"{row.number:04d}" / "metrics.jsonl"
        assert log.exists() or row.status == "failed"  # one that fails in its first block has trained nothing
        lines = [
            json.loads(line)["tokens"]
            for line in (log.read_text().splitlines() if log.exists() else [])
            if '"kind": "train"' in line
        ]
        assert lines == sorted(set(lines)), "a stretch of training is logged twice"
        assert row.status != "complete" or lines[-1] == TOTAL_TOKENS


@pytest.fixture
def folder() -> Any:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@MANY
@given(st.integers(1, 4), st.integers(1, 3), st.integers(0, 10**6))
def test_every_trial_ends_once_in_every_order_of_arrival(n_workers: int, n_slots: int, seed: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, heard = Path(name) / "run", Heard()
        result = run(SimulatedEngine(n_workers, n_slots, seed), folder, None, heard)
        check_ended_once(folder, result)
        assert Counter(number for number, _ in heard.ended) == Counter(range(9))


@MANY
@given(st.integers(2, 3), st.integers(0, 10**6), st.lists(st.integers(0, 12), min_size=1, max_size=4))
def test_a_killed_driver_decides_what_an_undisturbed_one_does(n_workers: int, seed: int, kills: list[int]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "killed"
        order: list[tuple[int, int]] = []
        for count, after in enumerate(kills):
            engine = SimulatedEngine(n_workers, 2, seed + count, kill_after=after)
            run_killed(engine, folder)
            order += engine.reports
        engine = SimulatedEngine(n_workers, 2, seed + 100)
        result = run(engine, folder)
        check_ended_once(folder, result)
        order += engine.reports
        assert max(Counter(order).values(), default=1) == 1, "a report was asked for again after it had been noted"
        # The same order without a kill comes to the same.
        whole = Path(name) / "whole"
        undisturbed = SimulatedEngine(n_workers, 2, seed)
        undisturbed._dice = InOrder(order)  # type: ignore[assignment]
        assert run(undisturbed, whole).status == "complete"
        assert facts(whole) == facts(folder)


class InOrder:
    """Draws the worker that reported in an earlier run."""

    def __init__(self, order: list[tuple[int, int]]) -> None:
        self._order = iter(order)

    def choice(self, started: list[Any]) -> Any:
        worker, _ = next(self._order)
        return next(one for one in started if one.number == worker)

    def random(self) -> float:
        return 1.0


@MANY
@given(st.integers(2, 4), st.integers(0, 10**6), st.booleans())
def test_trials_of_lost_workers_continue_elsewhere(n_workers: int, seed: int, rejoin: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, heard = Path(name) / "run", Heard()
        engine = SimulatedEngine(n_workers, 2, seed, lose=0.1, rejoin=rejoin)
        starts, result = 0, None
        while result is None:
            with suppress(NoWorkerLeft):
                result = run(engine, folder, None, heard)
            starts += 1
            assert starts < 30
            engine = SimulatedEngine(n_workers, 2, seed + starts, lose=0.1, rejoin=rejoin)
        check_ended_once(folder, result)
        assert Counter(number for number, _ in heard.ended) == Counter(range(9))


@MANY
@given(st.integers(1, 3), st.integers(0, 10**6))
def test_memory_that_runs_out_shrinks_that_worker_alone(n_slots: int, seed: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "run"
        result = run(SimulatedEngine(3, n_slots, seed, forget=0.06), folder)
        check_ended_once(folder, result)
        failed = [row for row in result.rows if row.status == "failed"]
        assert all("memory does not suffice for this trial alone" in row.reason for row in failed)


@MANY
@given(st.integers(0, 10**6), st.lists(st.integers(1, 4), min_size=2, max_size=4))
def test_a_run_may_have_other_numbers_of_workers_at_each_start(seed: int, numbers: list[int]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "run"
        for count, n_workers in enumerate(numbers):
            run_killed(SimulatedEngine(n_workers, 2, seed + count, kill_after=5), folder)
        check_ended_once(folder, run(SimulatedEngine(2, 2, seed), folder))


def test_a_worker_whose_files_are_lost_begins_again(folder: Path) -> None:
    run_killed(SimulatedEngine(2, 2, 1, kill_after=9), folder / "run")
    shutil.rmtree(folder / "run" / "workers" / "1" / "checkpoints", ignore_errors=True)
    (folder / "run" / "workers" / "1" / "blocks.jsonl").unlink()
    check_ended_once(folder / "run", run(SimulatedEngine(2, 2, 1), folder / "run"))


def test_there_is_news_of_each_worker(folder: Path) -> None:
    heard = Heard()
    run(SimulatedEngine(3, 2, 5), folder / "run", None, heard)
    assert {one.worker for one in heard.workers} == {0, 1, 2}
    assert {one.state for one in heard.workers} == {"training", "idle"}
    quiet = Heard()
    run(SimulatedEngine(1, 2, 5), folder / "alone", None, quiet)
    assert quiet.workers == []


def test_workers_visit_the_streams_together(folder: Path) -> None:
    tree = sweep(8)
    tree["space"]["train_batch_size_tokens"] = {"choice": [64, 128]}
    tree["objective"] = {"maximize": "explained_variance"}
    for after in (3, 6, 9, 5):
        run_killed(SimulatedEngine(2, 2, after, kill_after=after), folder / "run", tree)
    result = run(SimulatedEngine(2, 2, 3), folder / "run", tree)
    assert result.status == "complete"
    assert Counter(row.stream for row in result.rows) == Counter(
        {"train_batch_size_tokens 64": 4, "train_batch_size_tokens 128": 4}
    )


def test_a_damaged_request_and_those_after_it_are_trained_again(folder: Path) -> None:
    run_killed(SimulatedEngine(2, 2, 1, kill_after=9), folder / "run")
    requests = folder / "run" / "workers" / "1" / "blocks.jsonl"
    lines = requests.read_bytes().splitlines(keepends=True)
    lines[0] = lines[0].replace(b'"place"', b'"piece"', 1)  # valid JSON, and not what was asked for
    assert lines[0] != requests.read_bytes().splitlines(keepends=True)[0]
    requests.write_bytes(b"".join(lines))
    check_ended_once(folder / "run", run(SimulatedEngine(2, 2, 1), folder / "run"))


def test_a_log_that_ends_before_a_worker_s_checkpoint_is_one_message(folder: Path) -> None:
    """The worker has gone further than the driver remembers: its reports would be taken for earlier ones."""
    run_killed(SimulatedEngine(2, 2, 1, kill_after=0), folder / "run")
    snapshot = (folder / "run" / "driver.json").read_text()
    run_killed(SimulatedEngine(2, 2, 1, kill_after=14), folder / "run")
    (folder / "run" / "driver.json").write_text(snapshot)  # on a slow machine a later one has been taken
    (folder / "run" / "reports.jsonl").write_text("")
    with pytest.raises(
        saesweep.UserError, match=r"reports\.jsonl: its last lines are missing: worker \d has a checkpoint"
    ):
        run(SimulatedEngine(2, 2, 1), folder / "run")


@pytest.mark.parametrize("name", ["reports.jsonl", "driver.json"])
def test_what_the_driver_repeats_is_what_it_noted_or_one_message(folder: Path, name: str) -> None:
    run_killed(SimulatedEngine(2, 2, 1, kill_after=9), folder / "run")
    file = folder / "run" / name
    text = file.read_text()
    assert name == "driver.json" or len(text.splitlines()) > 2
    for damaged in (
        text[text.index("\n") + 1 :],
        text.replace("1", "2", 1),
        text[: len(text) // 2] + "\n",
        "[]\n",
        "[" * 100_000 + "\n",
    ):
        file.write_text(damaged)
        with pytest.raises(saesweep.UserError, match=rf"{name}.*damaged.*start a new run with --run-dir"):
            run(SimulatedEngine(2, 2, 1), folder / "run")
    if name == "driver.json":
        file.unlink()
        for n_workers in (1, 2):
            with pytest.raises(saesweep.UserError, match=r"driver\.json: missing.*start a new run with --run-dir"):
                run(SimulatedEngine(n_workers, 2, 1), folder / "run")
    file.write_text(text)
    check_ended_once(folder / "run", run(SimulatedEngine(2, 2, 1), folder / "run"))
