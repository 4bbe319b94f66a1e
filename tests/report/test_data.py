"""What the report reads from the logs of a run."""

import json
from pathlib import Path
from typing import Any

import pytest

from saesweep.errors import UserError
from saesweep.report.data import read_run


def write_run(folder: Path, events: list[dict[str, Any]], tail: str = "") -> Path:
    board = {"name": "a", "status": "running", "rows": [], "metrics": [], "goals": ["minimize l0"], "stream_tokens": 0}
    (folder / "leaderboard.json").write_text(json.dumps(board))
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events) + tail)
    return folder


def started(seconds: float) -> dict[str, Any]:
    return {"event": "RunStarted", "time_seconds": seconds}


def enters(seconds: float, number: int, slot: int) -> dict[str, Any]:
    return {"event": "TrialStarted", "time_seconds": seconds, "number": number, "slot": slot}


def ends(seconds: float, number: int, status: str) -> dict[str, Any]:
    return {"event": "TrialEnded", "time_seconds": seconds, "number": number, "status": status}


def test_the_pause_between_two_starts_is_no_running_time(tmp_path: Path) -> None:
    events = [
        started(100.0),
        enters(100.0, 0, 0),
        enters(100.0, 1, 1),
        ends(110.0, 1, "pruned"),
        started(1000.0),
        enters(1000.0, 0, 0),
        ends(1005.0, 0, "complete"),
    ]
    run = read_run(write_run(tmp_path, events))
    assert run.seconds == 15.0
    assert run.starts == 2
    stays = [(s.trial, s.slot, s.begin_seconds, s.end_seconds, s.status) for s in run.stays]
    assert stays == [(1, 1, 0.0, 10.0, "pruned"), (0, 0, 0.0, 10.0, "interrupted"), (0, 0, 10.0, 15.0, "complete")]


def test_a_run_that_is_still_writing_is_read_and_left_alone(tmp_path: Path) -> None:
    folder = write_run(tmp_path, [started(0.0), enters(1.0, 0, 0)], tail='{"event": "Blo')
    before = (folder / "events.jsonl").read_bytes()
    assert [stay.status for stay in read_run(folder).stays] == ["interrupted"]
    assert (folder / "events.jsonl").read_bytes() == before


def test_a_damaged_log_is_one_clear_message(tmp_path: Path) -> None:
    folder = write_run(tmp_path, [])
    (folder / "events.jsonl").write_text("{broken\n")
    with pytest.raises(UserError, match=r"events\.jsonl"):
        read_run(folder)


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such run"):
        read_run(tmp_path / "nothing")
    with pytest.raises(UserError, match=r"leaderboard\.json"):
        read_run(tmp_path)
