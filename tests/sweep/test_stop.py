"""Ctrl-C and SIGTERM: at once while a run is set up or finished, after the block while it trains, at once when repeated."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import saesweep
from saesweep.cli import main
from saesweep.events import BlockDone, Event
from tests.sweep.conftest import Finished
from tests.sweep.studies import snapshot


@pytest.mark.parametrize(
    ("place", "number"),
    [
        ("saesweep.driver.runner.preflight", signal.SIGTERM),  # looking at the model and the dataset
        ("saesweep.worker.setup.open_source", signal.SIGINT),  # splitting, tokenising, loading
        pytest.param("saesweep.worker.normalizers.Normalizer.fit", signal.SIGTERM, marks=pytest.mark.long),
        # The winner's last measurements.
        pytest.param("saesweep.driver.phase.finish", signal.SIGINT, marks=pytest.mark.long),
    ],
)
def test_set_up_and_the_end_stop_at_once(
    place: str,
    number: signal.Signals,
    experiment_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    before = signal.getsignal(number)
    reached: list[float] = []

    def endless(*_: Any, **__: Any) -> None:
        reached.append(time.monotonic())
        threading.Timer(0.2, os.kill, (os.getpid(), number)).start()
        time.sleep(60)

    command = ["run", str(experiment_file), "--run-dir", str(run), "--display", "none"]
    with monkeypatch.context() as patched:
        patched.setattr(place, endless)
        assert main(command) == 130
    assert time.monotonic() - reached[0] < 20  # of the 60 that it would have taken
    assert f"resume with: saesweep run {experiment_file} --run-dir {run}" in capsys.readouterr().err
    assert signal.getsignal(number) == before
    if (run / "leaderboard.json").exists():
        assert json.loads((run / "leaderboard.json").read_text())["status"] == "interrupted"
    assert main(command) == 0


def test_the_second_signal_stops_now_and_nothing_is_lost(
    tree: dict[str, Any], finished: Finished, tmp_path: Path
) -> None:
    run = tmp_path / "run"

    def twice(event: Event) -> None:
        if isinstance(event, BlockDone) and event.block == 3:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt, match="resume with: saesweep run"):
        saesweep.run(tree, run_dir=run, listeners=(twice,))
    assert json.loads((run / "leaderboard.json").read_text())["status"] == "interrupted"
    assert not [thread.name for thread in threading.enumerate() if thread.name == "saesweep-checkpoint"]
    saesweep.run(tree, run_dir=run)
    assert snapshot(run) == snapshot(finished.folder)
