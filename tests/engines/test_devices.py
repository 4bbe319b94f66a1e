"""What `cohort.devices` asks for, and which engine answers."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from saesweep.engines import choose, devices
from saesweep.engines.local import LocalEngine
from saesweep.errors import ExperimentError, UserError
from saesweep.events import Event, EventBus
from saesweep.experiment import Experiment, load_experiment
from tests.reliability.conftest import few_trials


def experiment(wanted: Any, device: str = "auto") -> Experiment:
    tree = few_trials()
    tree["base"]["device"] = device
    tree["cohort"]["devices"] = wanted
    return load_experiment(tree)


@pytest.mark.parametrize(
    ("wanted", "gpus", "expected"),
    [
        ("auto", 0, ("",)),
        ("auto", 1, ("",)),
        ("auto", 3, ("cuda", "cuda", "cuda")),
        (1, 0, ("",)),
        (2, 4, ("cuda", "cuda")),
        (["cuda:1", "cuda:3"], 0, ("cuda:1", "cuda:3")),
        (["cpu"], 0, ("cpu",)),
        ("cpu x 3", 2, ("cpu", "cpu", "cpu")),
    ],
)
def test_each_device_has_a_worker(wanted: Any, gpus: int, expected: tuple[str, ...]) -> None:
    assert devices.worker_devices(experiment(wanted), gpus) == expected


def test_a_device_that_the_file_names_stays_the_only_one() -> None:
    assert devices.worker_devices(experiment("auto", device="cpu"), 4) == ("",)
    assert devices.worker_devices(experiment("auto", device="cuda"), 4) == ("cuda",) * 4


def test_more_gpus_than_there_are_is_one_message() -> None:
    with pytest.raises(UserError, match=r"cohort\.devices: 4 GPUs are asked for, and 1 is visible; ask for fewer"):
        devices.worker_devices(experiment(4), 1)


@pytest.mark.parametrize(
    ("wanted", "device", "message"),
    [
        (["cpu", "cuda:0"], "auto", "on devices of one kind, but these are cpu, cuda"),
        (["cuda:0", "cuda:0"], "auto", "cuda:0 is named twice"),
        (["cuda", "cuda:1"], "auto", "write cuda:0, cuda:1 and so on"),
        ("cpu x 2", "cuda", "cpu contradicts base.device, which is cuda"),
        (2, "cpu", "2 GPUs are asked for, but base.device is cpu"),
        ("cpu x 0", "auto", "cohort.devices"),
        ("two", "auto", "cohort.devices"),
        ([], "auto", "cohort.devices"),
        (0, "auto", "cohort.devices"),
    ],
)
def test_devices_that_make_no_sense_are_found_in_the_file(wanted: Any, device: str, message: str) -> None:
    with pytest.raises(ExperimentError, match=message) as caught:
        experiment(wanted, device)
    assert "cohort.devices" in str(caught.value)


def test_the_number_of_devices_is_no_part_of_what_a_run_is() -> None:
    assert experiment("auto").fingerprint() == experiment("cpu x 2").fingerprint()


def test_several_devices_without_ray_are_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "saesweep.engines.ray", raising=False)
    with pytest.raises(UserError, match=r"^cohort\.devices: several devices take Ray.*pip install 'saesweep\[ray\]'"):
        choose.open_engine(experiment("cpu x 2"), EventBus())


def test_auto_without_ray_says_which_gpus_it_leaves_unused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "visible_gpus", lambda: 4)
    monkeypatch.setattr(choose, "find_spec", lambda name: None)
    heard: list[Event] = []
    assert isinstance(choose.open_engine(experiment("auto"), EventBus(heard.append)), LocalEngine)
    (note,) = heard
    assert "4 GPUs are visible and one of them is used, because Ray is not installed" in note.message
    assert isinstance(choose.open_engine(experiment(1), EventBus(heard.append)), LocalEngine)
    assert len(heard) == 1
