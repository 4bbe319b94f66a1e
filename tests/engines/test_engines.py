"""The engines against their contract, and whole sweeps that must not depend on the engine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import saesweep
from saesweep.engines.local import LocalEngine
from saesweep.engines.protocol import Engine
from saesweep.engines.records import BlockRequest, Commands, Place, TrialReport
from saesweep.errors import ExperimentError, UserError
from saesweep.experiment import load_experiment
from saesweep.testing import EngineContract
from tests.engines.wire import WireEngine
from tests.reliability.conftest import few_trials
from tests.sweep.studies import snapshot
from tests.sweep.test_matched_run import matched_sweep
from tests.sweep.test_streams import two_streams


class TestLocal(EngineContract):
    @pytest.fixture
    def engine(self) -> Engine:
        return LocalEngine()


class TestWire(EngineContract):
    @pytest.fixture
    def engine(self) -> Any:
        return WireEngine()


def confirmed() -> dict[str, Any]:
    tree = few_trials()
    tree["objective"] = {"maximize": "explained_variance"}
    tree["search"] |= {"replicates": 2, "confirm": {"top": 2, "replicates": 2, "training_tokens": "2x"}}
    return tree


@pytest.mark.parametrize(
    "make",
    [few_trials, two_streams, *(pytest.param(make, marks=pytest.mark.long) for make in (matched_sweep, confirmed))],
)
def test_a_sweep_through_text_alone_is_the_same(make: Any, tmp_path: Path) -> None:
    """An engine is one file, given to a run from outside: here tests/engines/wire.py."""
    saesweep.run(make(), run_dir=tmp_path / "local")
    assert saesweep.run(make(), run_dir=tmp_path / "wire", engine=WireEngine()).status == "complete"
    assert snapshot(tmp_path / "wire") == snapshot(tmp_path / "local")


def test_records_keep_nan_and_infinities_and_name_what_is_missing() -> None:
    report = TrialReport(
        tokens=1,
        step=1,
        joined_at_tokens=0,
        is_finite=False,
        values={"losses/overall_loss": float("nan"), "x": float("inf")},
    )
    again = TrialReport.from_json(report.to_json())
    assert again.loss != again.loss
    assert again.values["x"] == float("inf")
    with pytest.raises(ValueError, match="tokens"):
        TrialReport.from_json("{}")
    request = BlockRequest(
        number=1,
        steps=2,
        commands=Commands(place=(Place(number=3, slot=0, params={"a": [1, None], "b": True}),)),
        measure=(3,),
        metrics=("l0",),
        required=(),
    )
    assert BlockRequest.from_json(request.to_json()) == request


def test_an_engine_that_is_not_installed_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "saesweep.engines.ray", raising=False)
    with pytest.raises(UserError, match=r"engine\.ray: Ray is not installed; pip install 'saesweep\[ray\]'"):
        saesweep.run({**few_trials(), "engine": {"ray": {}}}, run_dir=tmp_path / "run")


def test_the_engine_is_no_part_of_what_a_run_is() -> None:
    here, there = few_trials(), {**few_trials(), "engine": {"ray": {"address": "auto"}}}
    assert load_experiment(here).fingerprint() == load_experiment(there).fingerprint()
    with pytest.raises(ExperimentError, match="unknown key 'adress'; did you mean 'address'"):
        load_experiment({**few_trials(), "engine": {"ray": {"adress": "auto"}}})
