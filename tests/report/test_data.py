"""What the report reads from the logs of a run."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from saesweep.errors import UserError
from saesweep.report.curves import TRAINED, curve_figures
from saesweep.report.data import read_run
from saesweep.report.figures import NEVER, density_figure
from saesweep.report.page import report_page
from tests.display.runs import row


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


def test_asking_for_a_finished_run_again_is_no_running_time(tmp_path: Path) -> None:
    over = {"event": "RunEnded", "status": "complete"}
    events = [started(100.0), enters(100.0, 0, 0), ends(110.0, 0, "complete"), {**over, "time_seconds": 112.0}]
    events += [{**over, "status": "already complete", "time_seconds": at} for at in (5000.0, 9000.0)]
    events += [started(10_000.0), enters(10_001.0, 1, 0), ends(10_003.0, 1, "complete")]  # and then with more trials
    run = read_run(write_run(tmp_path, events))
    assert (run.seconds, run.starts) == (15.0, 2)
    assert [(s.begin_seconds, s.end_seconds) for s in run.stays] == [(0.0, 10.0), (13.0, 15.0)]


def test_slots_belong_to_workers_and_a_trial_that_moves_stays_in_both(tmp_path: Path) -> None:
    events = [
        started(0.0),
        enters(0.0, 0, 0),
        {**enters(0.0, 1, 0), "worker": 1},
        enters(4.0, 1, 1),  # its worker is gone, and another has a free slot
        ends(9.0, 1, "complete"),
        ends(9.0, 0, "complete"),
    ]
    run = read_run(write_run(tmp_path, events))
    stays = [(s.trial, s.worker, s.slot, s.end_seconds, s.status) for s in run.stays]
    assert stays == [(1, 1, 0, 4.0, "interrupted"), (1, 0, 1, 9.0, "complete"), (0, 0, 0, 9.0, "complete")]


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


def test_the_page_of_a_long_run_of_many_trials_stays_small(tmp_path: Path) -> None:
    """100 trials of 600 blocks each: unthinned, the curves alone would take 5 MB."""
    events = [started(0.0)]
    rows = []
    for number in range(100):
        rows.append(
            asdict(row(number, rank=number + 1, metrics={"l0": 10.0 + number, "explained_variance": 0.123456789}))
        )
        folder = tmp_path / "trials" / f"{number:04d}"
        folder.mkdir(parents=True)
        values = {name: 0.123456789012 for name in TRAINED}
        lines = [json.dumps({"tokens": 4096 * block, "kind": "train", **values}) for block in range(1, 601)]
        (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
        events += [enters(float(number), number, number % 8), ends(number + 8.0, number, "complete")]
    rate = {"event": "BlockDone", "time_seconds": 400.0, "sae_tokens_per_second": 123456.789}
    write_run(tmp_path, events + [rate] * 10_000)
    board = json.loads((tmp_path / "leaderboard.json").read_text())
    (tmp_path / "leaderboard.json").write_text(json.dumps({**board, "rows": rows}))
    run = read_run(tmp_path)
    assert len(report_page(run, features_link=None).encode()) < 5_000_000
    figures = curve_figures(run)
    assert len(figures) == len(TRAINED)
    (last,) = {trace.x[-1] for figure in figures.values() for trace in figure.data if len(trace.x)}
    assert last == 4096 * 600  # thinning keeps where a curve ends


def test_latents_that_never_fire_have_a_bar_and_a_name_of_their_own() -> None:
    made = density_figure([NEVER] * 3 + [-3.95, -2.1, -2.15, -0.4, 0.0])
    (bars,) = made.data
    shown = dict(zip(bars.customdata, bars.y, strict=True))
    assert shown["on no token"] == 3
    assert shown["0.63% to 1% of tokens"] == 2
    assert shown["63% to 100% of tokens"] == 1  # a latent that always fires
    assert sum(bars.y) == 8
    assert made.layout.xaxis.ticktext == ("never", "0.01%", "0.1%", "1%", "10%", "100%")
    assert bars.x[0] < made.layout.xaxis.tickvals[1] < min(bars.x[1:])
