"""The Ray engine against the contract, and what it is for: a worker that is killed is started again and nothing differs."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import saesweep
from saesweep.errors import UserError
from saesweep.events import BlockDone
from saesweep.experiment import load_experiment
from tests.engines.contract import EngineContract
from tests.reliability.conftest import few_trials
from tests.reliability.conftest import tmp_path as tmp_path
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

        return RayEngine(RaySpec())


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
            ray.kill(actors[-1], no_restart=False)
            killed.append(event.block)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(engine_module.RayWorker, "start", noted)
        result = saesweep.run(on_ray(), run_dir=tmp_path / "ray", listeners=[kill])
    assert (result.status, killed) == ("complete", [3, 6])
    assert snapshot(tmp_path / "ray") == snapshot(tmp_path / "local")


def test_a_run_may_go_on_with_another_engine(tmp_path: Path) -> None:
    def press(event: Any) -> None:
        if isinstance(event, BlockDone) and event.block == 3:
            os.kill(os.getpid(), signal.SIGINT)

    saesweep.run(few_trials(), run_dir=tmp_path / "local")
    assert saesweep.run(on_ray(), run_dir=tmp_path / "run", listeners=[press]).status == "interrupted"
    assert saesweep.run(few_trials(), run_dir=tmp_path / "run").status == "complete"
    assert snapshot(tmp_path / "run") == snapshot(tmp_path / "local")


def test_a_cluster_that_is_not_there_is_one_message(tmp_path: Path) -> None:
    from saesweep.engines.ray import RayEngine

    ray.shutdown()
    with pytest.raises(UserError, match=r"engine\.ray\.address: no Ray cluster at 127\.0\.0\.1:1"):
        RayEngine(load_experiment({**few_trials(), "engine": {"ray": {"address": "127.0.0.1:1"}}}).spec.engine.ray)
