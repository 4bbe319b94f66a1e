"""Several real workers: a run whose driver is killed comes to the bits of one that is not, and to those of one worker."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import saesweep
from saesweep.driver import runner
from saesweep.engines.protocol import WorkerLost
from saesweep.engines.records import BlockReport, WorkerPlan
from saesweep.experiment import Experiment
from tests.driver.test_several_workers import Killed
from tests.engines.wire import WireEngine, WireWorker
from tests.reliability.conftest import few_trials
from tests.sweep.studies import snapshot


class Pair(WireEngine):
    """Two real workers in this process: the one that has reported fewer blocks reports next."""

    def __init__(self, kill_after: int | None = None, lose: tuple[int, int] | None = None) -> None:
        super().__init__()
        self._kill_after, self._lose = kill_after, lose
        self._count = 0
        self.plans: dict[int, WorkerPlan] = {}

    def devices(self, experiment: Experiment) -> tuple[str, ...]:
        return ("", "")

    def open(self, plan: WorkerPlan, experiment: Experiment) -> WireWorker:
        worker = super().open(plan, experiment)
        self.plans[id(worker)] = plan
        return worker

    def next_report(self, workers: Sequence[Any], while_waiting: Any) -> tuple[WireWorker, BlockReport]:
        started = [one for one in workers if one.inner.request is not None]
        chosen = min(started, key=lambda one: (one.inner.request.number, self.plans[id(one)].folder))
        if self._count == self._kill_after:
            raise Killed
        self._count += 1
        if self._lose == (chosen.inner.request.number, int(bool(self.plans[id(chosen)].folder))):
            fault = WorkerLost("its machine does not answer")
            fault.worker = chosen
            raise fault
        return super().next_report([chosen], while_waiting)


def experiment() -> dict[str, Any]:
    tree = few_trials()
    tree["cohort"] |= {"size": 2, "kernels": "reference"}
    return tree


def run(folder: Path, engine: WireEngine) -> Any:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(runner, "open_engine", lambda *_: engine)
        return saesweep.run(experiment(), run_dir=folder)


def logs_by_start(folder: Path) -> dict[tuple[int, int], str]:
    rows = json.loads((folder / "leaderboard.json").read_text())["rows"]
    path = folder / "trials"
    return {
        (r["number"], r["joined_at_tokens"]): (path / f"{r['number']:04d}" / "metrics.jsonl").read_text() for r in rows
    }


def test_kills_at_any_report_leave_every_bit_as_it_was(tmp_path: Path) -> None:
    assert run(tmp_path / "whole", Pair()).status == "complete"
    for after in (0, 1, 4, 5):
        with pytest.raises(Killed):
            run(tmp_path / "killed", Pair(kill_after=after))
    assert run(tmp_path / "killed", Pair()).status == "complete"
    assert snapshot(tmp_path / "killed") == snapshot(tmp_path / "whole")


def test_a_trial_is_the_same_on_either_worker_as_on_the_only_one(tmp_path: Path) -> None:
    assert run(tmp_path / "one", WireEngine()).status == "complete"
    assert run(tmp_path / "two", Pair()).status == "complete"
    one, two = logs_by_start(tmp_path / "one"), logs_by_start(tmp_path / "two")
    assert Counter(joined for _, joined in two)[0] == 4
    same = [key for key in one if key in two]
    assert len(same) >= 2
    for key in same:  # one of them may be pruned earlier, where others had reported by then
        shorter, longer = sorted((one[key], two[key]), key=len)
        assert longer.startswith(shorter)


def test_trials_of_a_lost_worker_continue_on_the_other_one(tmp_path: Path) -> None:
    result = run(tmp_path / "run", Pair(lose=(4, 1)))
    assert result.status == "complete"
    records = [json.loads(file.read_text()) for file in sorted((tmp_path / "run" / "trials").glob("*/trial.json"))]
    assert len(records) == 6
    moved = [record for record in records if record.get("moves")]
    assert moved
    for record in moved:
        assert record["moves"][0]["worker"] == 0
        assert record["moves"][0]["tokens"] <= record["tokens"]
    for record in records:
        lines = (tmp_path / "run" / "trials" / f"{record['number']:04d}" / "metrics.jsonl").read_text().splitlines()
        tokens = [json.loads(line)["tokens"] for line in lines if '"kind": "train"' in line]
        assert tokens == sorted(set(tokens))
        assert tokens[-1:] == [record["tokens"]][: len(tokens)]  # one may be pruned before it has begun again
        assert tokens or record["status"] == "pruned"
