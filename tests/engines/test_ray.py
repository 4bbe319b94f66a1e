"""The Ray engine against the contract, and what it is for: a worker that is killed is started again and nothing differs."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import saesweep
from saesweep.errors import UserError
from saesweep.events import BlockDone, BlockProgress, WorkerNews
from saesweep.experiment import load_experiment
from saesweep.testing import EngineContract, experiment_of
from tests.reliability.conftest import few_trials
from tests.sweep.studies import snapshot

ray = pytest.importorskip("ray", reason="the extra saesweep[ray] is not installed")


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """One cluster for all tests of the file."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield
    ray.shutdown()


class TestRay(EngineContract):
    @pytest.fixture
    def engine(self) -> Any:
        from saesweep.engines.ray import RayEngine
        from saesweep.specs import RaySpec

        return RayEngine(RaySpec(), experiment_of())


def on_ray() -> dict[str, Any]:
    return {**few_trials(), "engine": {"ray": {}}}


def test_a_sweep_on_ray_is_the_local_one_even_where_its_worker_is_killed(tmp_path: Path) -> None:
    from saesweep.engines import ray as engine_module

    saesweep.run(few_trials(), run_dir=tmp_path / "local")
    actors: list[Any] = []
    remote = engine_module.RayWorker.start

    def noted(self: Any, request: Any) -> None:
        actors.append(self.actor)
        remote(self, request)

    killed: list[int] = []

    def kill(event: Any) -> None:
        if isinstance(event, BlockDone) and event.block in (3, 6):
            ray.kill(actors[-1])
            killed.append(event.block)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(engine_module.RayWorker, "start", noted)
        result = saesweep.run(on_ray(), run_dir=tmp_path / "ray", listeners=[kill])
    assert (result.status, killed) == ("complete", [3, 6])
    assert snapshot(tmp_path / "ray") == snapshot(tmp_path / "local")


def test_a_run_may_resume_with_another_engine(tmp_path: Path) -> None:
    def press(event: Any) -> None:
        if isinstance(event, BlockDone) and event.block == 3:
            os.kill(os.getpid(), signal.SIGINT)

    saesweep.run(few_trials(), run_dir=tmp_path / "local")
    assert saesweep.run(on_ray(), run_dir=tmp_path / "run", listeners=[press]).status == "interrupted"
    assert saesweep.run(few_trials(), run_dir=tmp_path / "run").status == "complete"
    assert snapshot(tmp_path / "run") == snapshot(tmp_path / "local")


def on_two(**changes: Any) -> dict[str, Any]:
    tree = few_trials()
    tree["cohort"] = {**tree["cohort"], "devices": "cpu x 2", "size": 2, "kernels": "reference", **changes}
    return tree


def by_start(folder: Path) -> dict[tuple[int, int], list[str]]:
    """Return the log of each trial by its number and where it joined the stream."""
    rows = json.loads((folder / "leaderboard.json").read_text())["rows"]
    logs = {row["number"]: (folder / "trials" / f"{row['number']:04d}" / "metrics.jsonl").read_text() for row in rows}
    return {(row["number"], row["joined_at_tokens"]): logs[row["number"]].splitlines() for row in rows}


def test_two_workers_give_a_trial_the_figures_that_one_gives_it(tmp_path: Path) -> None:
    alone = on_two(devices="auto")
    alone["search"]["pruner"] = "none"
    both = on_two()
    both["search"]["pruner"] = "none"
    assert saesweep.run(alone, run_dir=tmp_path / "one").status == "complete"
    workers: set[int] = set()
    seen: list[BlockProgress] = []

    def watch(event: Any) -> None:
        if isinstance(event, WorkerNews):
            workers.add(event.worker)
        if isinstance(event, BlockProgress):
            seen.append(event)

    assert saesweep.run(both, run_dir=tmp_path / "two", listeners=[watch]).status == "complete"
    assert workers == {0, 1}
    one, two = by_start(tmp_path / "one"), by_start(tmp_path / "two")
    same = [key for key in one if key in two]
    assert len([key for key in two if key[1] == 0]) == 4  # two slots on each worker begin at the start of the stream
    assert len(same) >= 2
    assert all(one[key] == two[key] for key in same)
    assert (tmp_path / "two" / "workers" / "1.log").read_text().count("block") > 3
    assert not (tmp_path / "one" / "workers").exists()


def test_killed_workers_of_two_change_nothing(tmp_path: Path) -> None:
    from saesweep.engines import ray as engine_module

    actors: list[Any] = []
    remote = engine_module.RayWorker.again

    def noted(self: Any) -> None:
        actors.append(self.actor)
        remote(self)

    blocks: list[int] = []

    def kill(event: Any) -> None:
        if isinstance(event, BlockDone):
            blocks.append(event.block)
            if len(blocks) in (3, 8):
                ray.kill(actors[-1])

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(engine_module.RayWorker, "again", noted)
        result = saesweep.run(on_two(), run_dir=tmp_path / "two", listeners=[kill])
    assert result.status == "complete"
    assert len(blocks) > 8
    assert {row.status for row in result.rows} <= {"complete", "pruned"}


def test_a_worker_that_waits_for_a_device_holds_nobody_up(tmp_path: Path) -> None:
    from saesweep.engines import ray as engine_module

    actors: list[Any] = []
    remote = engine_module.RayWorker.again

    def noted(self: Any) -> None:
        actors.append(self.actor)
        remote(self)

    @ray.remote(num_cpus=1)
    class Other:
        """Takes the processor that a killed worker leaves."""

        def is_there(self) -> bool:
            return True

    blocks, others, heard = [0], list[Any](), list[str]()

    def disturb(event: Any) -> None:
        heard.append(getattr(event, "message", ""))
        if not isinstance(event, BlockDone):
            return
        blocks[0] += 1
        if blocks[0] == 3:
            ray.kill(actors[-1])
            others.append(Other.remote())
            assert ray.get(others[0].is_there.remote())
        if blocks[0] == 6:  # three further ones, of the other worker
            ray.kill(others[0])

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(engine_module.RayWorker, "again", noted)
        result = saesweep.run(on_two(), run_dir=tmp_path / "two", listeners=[disturb])
    assert result.status == "complete"
    assert {row.status for row in result.rows} <= {"complete", "pruned"}
    assert not [message for message in heard if "is gone" in message]


def test_a_worker_that_dies_again_and_again_gets_fewer_trials_and_then_its_trial_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadly = tmp_path / "deadly.py"
    deadly.write_text(
        "import os\n"
        "from saesweep.cohort import Cohort\n"
        "real = Cohort.train_step\n"
        "def train_step(self, batch):\n"
        "    if sum(1 for _ in self.occupied()) > 1:\n"
        "        os._exit(137)\n"
        "    return real(self, batch)\n"
        "Cohort.train_step = train_step\n"
    )
    monkeypatch.setattr("saesweep.engines.ray.named_plugins", lambda: [str(deadly)])
    heard: list[str] = []
    result = saesweep.run(
        on_two(), run_dir=tmp_path / "two", listeners=[lambda event: heard.append(getattr(event, "message", ""))]
    )
    assert result.status == "complete"
    told = [text for text in heard if "its process ended 4 times in the same call" in text or "out of memory" in text]
    assert told
    assert {row.status for row in result.rows} <= {"complete", "pruned"}
    choices = [json.loads(file.read_text())["slots"] for file in (tmp_path / "two").rglob("choices.json")]
    assert choices == [1, 1]


def test_sigterm_lets_the_workers_finish_their_blocks(tmp_path: Path) -> None:
    """Ray has a handler of its own, which would end the driver at once."""
    ray.shutdown()
    heard: list[str] = []

    def terminate(event: Any) -> None:
        heard.append(getattr(event, "message", ""))
        if isinstance(event, BlockDone) and event.block == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    assert saesweep.run(on_ray(), run_dir=tmp_path / "run", listeners=[terminate]).status == "interrupted"
    assert ray.is_initialized()
    saesweep.run(few_trials(), run_dir=tmp_path / "local")
    assert saesweep.run(few_trials(), run_dir=tmp_path / "run").status == "complete"
    assert snapshot(tmp_path / "run") == snapshot(tmp_path / "local")


def test_a_cluster_that_is_not_there_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from saesweep.engines.ray import RayEngine

    ray.shutdown()
    monkeypatch.setattr("saesweep.engines.ray._CONNECT_SECONDS", 0.0)
    experiment = load_experiment({**few_trials(), "engine": {"ray": {"address": "127.0.0.1:1"}}})
    with pytest.raises(UserError, match=r"engine\.ray\.address: no Ray cluster at 127\.0\.0\.1:1"):
        RayEngine(experiment.spec.engine.ray, experiment)
