"""`saesweep leaderboard`: printed, as JSON, watched."""

from __future__ import annotations

import io
import json
import os
from dataclasses import asdict, replace

import pytest

from saesweep.cli import main
from saesweep.display import render_text
from saesweep.display.saved import read_leaderboard
from saesweep.display.watch import watch_leaderboard
from saesweep.errors import UserError
from saesweep.events import Row

ROW = Row(
    number=3,
    architecture="batchtopk",
    sparsity="k 32",
    params={"sae.k": 32},
    lr=3e-4,
    hook="model.layers.2",
    status="complete",
    tokens=1_000_000,
    total_tokens=1_000_000,
    rank=1,
    metrics={"l0": 31.9},
)


def write(folder, *rows, status="complete"):
    folder.mkdir(exist_ok=True)
    data = {
        "name": "quick",
        "status": status,
        "rows": [asdict(row) for row in rows],
        "metrics": ["l0"],
        "goals": ["minimize l0"],
    }
    (folder / "leaderboard.json").write_text(json.dumps(data))
    return data


@pytest.mark.parametrize("name", ["", "leaderboard.json"])
def test_prints_the_table_of_a_run_directory_or_file(tmp_path, capsys, name):
    write(tmp_path, ROW)
    assert main(["leaderboard", str(tmp_path / name)]) == 0
    assert capsys.readouterr().out == f"quick: complete; minimize l0\n{render_text([ROW], metrics=['l0'])}\n"


def test_json_is_the_file(tmp_path, capsys):
    data = write(tmp_path, ROW)
    assert main(["leaderboard", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == data


def test_null_metrics_are_shown_as_missing(tmp_path, capsys):
    data = write(tmp_path, ROW)
    data["rows"][0]["metrics"] = {"l0": None}
    (tmp_path / "leaderboard.json").write_text(json.dumps(data))
    assert main(["leaderboard", str(tmp_path)]) == 0
    assert "31.9" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "damaged, not valid JSON"),
        ("[]", "damaged, it must be a JSON object, got a list"),
        ("{}", "is no leaderboard"),
        ('{"name": "a"}', "is no leaderboard"),
        ('{"name": 1, "status": 2, "rows": [{"x": 1}]}', "is no leaderboard"),
    ],
)
def test_what_is_no_leaderboard_is_refused(tmp_path, capsys, text, message):
    (tmp_path / "leaderboard.json").write_text(text)
    assert main(["leaderboard", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert f"leaderboard.json: {message}" in err
    assert "a run that is resumed writes it again" in err
    assert len(err.splitlines()) == 1


def test_a_missing_run_is_named(tmp_path, capsys):
    assert main(["leaderboard", str(tmp_path / "nowhere")]) == 2
    assert main(["leaderboard", str(tmp_path)]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first == f"{tmp_path / 'nowhere'}: no such run directory"
    assert second.startswith(f"{tmp_path / 'leaderboard.json'}: not there")


def test_watch_prints_each_change_until_the_run_ends(tmp_path):
    (tmp_path / "experiment.yaml").write_text("name: quick")
    states = iter([None, ([ROW], "running"), ([ROW], "running"), ([ROW, ROW], "running"), ([ROW, ROW], "complete")])
    waits = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        state = next(states)
        if state is not None:
            write(tmp_path, *state[0], status=state[1])

    stream = io.StringIO()
    watch_leaderboard(tmp_path, stream, env={}, sleep=sleep)
    assert len(waits) == 5
    assert stream.getvalue().count("quick: running") == 2
    assert stream.getvalue().count("quick: complete") == 1


def test_watch_on_a_terminal_leaves_the_final_table(tmp_path):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    write(tmp_path, ROW, status="running")
    stream = Terminal()
    watch_leaderboard(tmp_path, stream, env={"TERM": "xterm"}, sleep=lambda _: write(tmp_path, ROW) and None)
    last = stream.getvalue().rpartition("\x1b[2K")[2]
    assert "quick: complete" in last
    assert "batchtopk" in last


def test_watch_of_no_run_fails_at_once(tmp_path):
    with pytest.raises(UserError, match="not there"):
        watch_leaderboard(tmp_path, io.StringIO(), env={}, sleep=lambda _: pytest.fail("waited"))


def test_rows_come_back_as_they_were(tmp_path):
    write(tmp_path, ROW)
    assert read_leaderboard(tmp_path).rows == (ROW,)


def test_what_a_finished_run_found_is_said(tmp_path, capsys):
    data = write(tmp_path, ROW) | {
        "best": 3,
        "test_metrics": {"l0": 32.12, "mse": None},
        "notes": ["no feasible trial"],
        "metrics": ["l0", "mse"],
    }
    (tmp_path / "leaderboard.json").write_text(json.dumps(data))
    assert main(["leaderboard", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "best: trial 3 (batchtopk k 32)",
        "test part (read once): L0 32.1 · MSE -",
        "note: no feasible trial",
    ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


NEWS = {
    "time_seconds": 1e12,  # the clock of another machine may be ahead
    "trials": 12,
    "best": 3,
    "resume_command": "saesweep run a.yaml --run-dir runs/a",
    "progress": {
        "stream_tokens": 430_000,
        "sae_tokens": 1_492_288,
        "expected_sae_tokens": 9_000_000,
        "sae_tokens_per_second": 152_345.0,
        "eta_seconds": 192.0,
        "epoch": 0,
        "tokens": {"3": 430_000},
    },
    "activity": None,
}


def watch(tmp_path, *news, status="running", end="complete"):
    """What a terminal shows of a run that is `running` while the news come, then ends."""
    (tmp_path / "experiment.yaml").write_text("name: quick")
    write(tmp_path, replace(ROW, status="training", tokens=1), status=status)
    coming = iter(news)

    def sleep(_: float) -> None:
        found = next(coming, None)
        if found is None:
            write(tmp_path, ROW, status=end)
        else:
            (tmp_path / "progress.json").write_text(json.dumps(found))

    stream = Terminal()
    watch_leaderboard(tmp_path, stream, env={"TERM": "xterm", "COLUMNS": "120"}, sleep=sleep)
    return stream.getvalue()


def test_watch_shows_bar_rate_and_time_left_of_a_run_elsewhere(tmp_path):
    text = watch(tmp_path, NEWS, NEWS | {"activity": {"message": "measuring 6 SAEs", "done": 1, "total": 4}})
    assert "17% · 152k SAE-tokens/s · ETA 3m 12s" in text
    assert "0 of 12 trials done, 1 training · stream 430k tokens" in text
    assert "measuring 6 SAEs 1 of 4" in text
    last = text.rpartition("\x1b[2K")[2]
    assert "SAE-tokens/s" not in last
    assert "quick: complete" in last


@pytest.mark.parametrize("broken", [{"progress": {}}, {"progress": 3, "activity": []}, {"activity": {"message": 1}}])
def test_news_that_make_no_sense_are_left_out(tmp_path, broken):
    assert "quick: complete" in watch(tmp_path, NEWS | broken)


def test_silence_is_said(tmp_path):
    assert "no news from the run for" in watch(tmp_path, NEWS | {"time_seconds": 1e9})


def test_an_interrupted_run_ends_the_watch_with_the_command_that_resumes(tmp_path):
    text = watch(tmp_path, NEWS, end="interrupted")
    assert text.endswith("the run was interrupted; resume with: saesweep run a.yaml --run-dir runs/a\n")


def test_a_run_whose_process_is_gone_ends_the_watch(tmp_path):
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    (tmp_path / "experiment.yaml").write_text("name: quick")
    (tmp_path / "lock").write_text(f"process {child} on {os.uname().nodename}")
    write(tmp_path, ROW, status="running")
    stream = io.StringIO()
    watch_leaderboard(tmp_path, stream, env={}, sleep=lambda _: pytest.fail("waited"))
    assert f"resume with: saesweep run {tmp_path}/experiment.yaml --run-dir {tmp_path}" in stream.getvalue()
