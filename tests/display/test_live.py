"""The live leaderboard: on a console that records, and once on a real pseudo-terminal."""

from __future__ import annotations

import io
import itertools
import os
import re
import sys
import time

import pytest
from rich.console import Console

from saesweep.display import make_display
from saesweep.display.live import LiveDisplay, board_view, make_console
from saesweep.display.state import RunState
from saesweep.events import Activity, CheckpointSaved, Note, TrialEnded, TrialMeasured, TrialStarted, WorkerNews

from .runs import ROWS, STARTED, block, ended, row, within

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


JOINED = TrialStarted(
    number=0, slot=0, architecture="batchtopk", sparsity="k 32", params={"lr": 3e-4}, joined_at_tokens=0
)


class FakeClock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def live(clock=None, *, env=None, width=120, height=40, verbose=False):
    console = make_console(io.StringIO(), env or {}, width=width, height=height)
    return LiveDisplay(console, verbose=verbose, clock=clock or FakeClock(), ticking=False), console.file


def written(stream) -> str:
    return CONTROL.sub("", stream.getvalue())


def test_redraws_at_most_four_times_a_second():
    clock = FakeClock()
    display, stream = live(clock)
    drawn = []
    with display:
        display(STARTED)
        for tick in range(100):  # ten seconds, ten blocks a second
            clock.seconds = tick / 10
            before = len(stream.getvalue())
            display(block(block=tick))
            if len(stream.getvalue()) > before:
                drawn.append(clock.seconds)
    assert 30 <= len(drawn) <= 40
    assert min(b - a for a, b in itertools.pairwise(drawn)) >= 0.25
    assert drawn[0] == 0.0


def test_the_view_shows_progress_slots_and_throughput():
    display, stream = live()
    with display:
        display(STARTED)
        display(block())
        text = written(stream)
    assert "━━──── 43%" in text
    assert "17% · 152k SAE-tokens/s · ETA 3m 12s" in text
    assert "4 of 12 trials done, 1 training · stream 430k tokens, epoch 0" in text
    assert "trials: batchtopk 3" in text


def test_the_final_table_stays_and_the_view_goes():
    display, stream = live()
    with display:
        display(STARTED)
        display(block())
        display(ended())
    # the view is erased line by line; what comes after the last erasing stays on the screen
    after = CONTROL.sub("", stream.getvalue().rpartition("\x1b[2K")[2])
    assert "architecture" in after
    assert "training 43%" in after
    assert "SAE-tokens/s ·" not in after  # the progress lines are part of the view only
    assert "best: trial 3 (batchtopk k 32) -> runs/quickstart/best" in after


def test_the_cursor_comes_back_after_an_error():
    display, stream = live()

    def train() -> None:
        with display:
            display(STARTED)
            display(block())
            raise RuntimeError

    with pytest.raises(RuntimeError):
        train()
    assert stream.getvalue().rstrip().rfind("\x1b[?25h") > stream.getvalue().rfind("\x1b[?25l")


def test_warnings_appear_above_and_colour_themselves_only():
    display, stream = live()
    with display:
        display(STARTED)
        display(block())
        before = len(stream.getvalue())
        display(Note(level="warning", message="only 2 epochs [of text]"))
        shown = stream.getvalue()[before:]
    assert "\x1b[33mwarning: only 2 epochs [of text]\x1b[0m" in shown
    assert shown.index("warning") < shown.index("architecture")
    assert shown.count("\x1b[33m") == 1


def test_failures_are_said_but_measurements_only_when_verbose():
    events = (
        TrialEnded(number=4, status="failed", tokens=12_288, reason="NaN"),
        TrialMeasured(number=3, tokens=1, metrics={"l0": 7.0}),
        TrialEnded(number=2, status="pruned", tokens=5),
        CheckpointSaved(block=1, stream_tokens=1, seconds=0.1),
    )
    for verbose in (False, True):
        display, stream = live(verbose=verbose)
        with display:
            for event in events:
                display(event)
        text = written(stream)
        assert "trial 4 failed at 12.3k tokens: NaN" in text
        assert ("trial 3 at 1 tokens: L0 7.0" in text) == verbose
        assert ("trial 2 pruned" in text) == verbose
        assert ("checkpoint" in text) == verbose


def test_no_color_is_respected():
    for env, coloured in (({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True)):
        display, stream = live(env=env)
        with display:
            display(STARTED)
            display(block())
            display(ended())
        assert bool(re.search(r"\x1b\[[0-9;]*3[0-9]m", stream.getvalue())) == coloured


@pytest.mark.parametrize("height", [12, 24, 60])
@pytest.mark.parametrize("n_rows", [0, 5, 200])
@pytest.mark.parametrize("width", [60, 80, 160])
def test_the_view_fits_the_screen(height, n_rows, width):
    rows = [row(i, on_front=i < 2, is_baseline=i == 1) for i in range(n_rows)] + list(ROWS)
    console = Console(file=io.StringIO(), force_terminal=True, no_color=True, width=width, height=height)
    console.print(board_view(console, rows, metrics=STARTED.metrics, n_footer=2))
    lines = CONTROL.sub("", console.file.getvalue()).splitlines()
    assert len(lines) <= max(height - 3, 12)
    assert max(map(len, lines)) <= width
    if n_rows == 200:
        assert any(re.match(r"… \d+ more", line) for line in lines)
        assert any("━━────" in line for line in lines)  # the training trial is 203rd and still there
        assert any("◆ 1" in line for line in lines[:4])


def test_on_a_pseudo_terminal_it_is_chosen_by_itself(monkeypatch):
    pty = pytest.importorskip("pty")
    master, slave = pty.openpty()
    try:
        with os.fdopen(slave, "w", encoding="utf-8") as stream:
            display = make_display("auto", stream, {"TERM": "xterm-256color"})
            assert isinstance(display, LiveDisplay)
            monkeypatch.setattr(sys, "stdout", stream)
            with display:
                display(STARTED)
                display(block())
                print("a library's own line")
                display(ended())
            text = b""
            while b"knee of the front" not in text:
                text += os.read(master, 65536)
    finally:
        os.close(master)
    shown = text.decode()
    assert "\x1b[?25l" in shown
    assert "a library's own line" in shown
    assert shown.rindex("complete") > shown.rindex("\x1b[2K")  # the final table comes after the last erasing


def test_each_step_before_training_is_shown_with_its_count():
    clock = FakeClock()
    display, stream = live(clock)
    with display:
        clock.seconds = 1.0
        display(Activity(message="tokenising the held-out text", done=1500, total=4000))
        assert "tokenising the held-out text 1.5k of 4k" in written(stream)
        clock.seconds = 6.0
        display(Activity(message="tokenising the held-out text", done=2000, total=4000))
    assert "tokenising the held-out text 2k of 4k, 5s" in written(stream)


def test_the_bars_move_between_blocks():
    clock = FakeClock()
    display, stream = live(clock)
    with display:
        display(STARTED)
        display(JOINED)
        for seconds, tokens in ((3.0, 100_000), (6.0, 200_000)):
            clock.seconds = seconds
            display(within(tokens=tokens))
            text = written(stream)
            assert f"{tokens // 10_000}%" in text
            assert "training" in text
        assert "k 32" in text  # a trial is there before its first block ends


def test_what_was_chosen_and_why_is_shown_only_when_verbose():
    for verbose in (False, True):
        display, stream = live(verbose=verbose)
        with display:
            display(STARTED)
        assert ("cohort of 4: memory allows 9" in written(stream)) == verbose
        assert "the text has 2 epochs" in written(stream)


def test_time_passes_on_the_screen_while_the_main_thread_waits():
    stream = io.StringIO()
    display = LiveDisplay(make_console(stream, {}, width=80, height=40))
    with display:
        display(Activity(message="loading a model"))
        deadline = time.monotonic() + 20
        while "loading a model, 2s" not in written(stream) and time.monotonic() < deadline:
            time.sleep(0.05)  # as a call into C that gives the lock of the interpreter back
    assert "loading a model, 2s" in written(stream)
    after = len(stream.getvalue())
    time.sleep(1.2)
    assert len(stream.getvalue()) == after  # nothing is drawn once the display is closed


def test_the_time_left_shrinks_between_the_news():
    clock = FakeClock()
    state = RunState(clock)
    state(STARTED)
    state(block())
    assert "ETA 3m 12s" in "\n".join(state.status_lines())
    clock.seconds = 10.0
    assert "ETA 3m 02s" in "\n".join(state.status_lines())
    clock.seconds = 1000.0
    assert "ETA 0s" in "\n".join(state.status_lines())


def test_measuring_takes_the_place_of_training_until_the_block_is_done():
    state = RunState(FakeClock())
    state(STARTED)
    state(block())
    assert "training" in state.status_lines()[-1]
    state(Activity(message="measuring 6 SAEs"))
    assert "measuring 6 SAEs" in state.status_lines()[-1]
    state(block())
    assert "measuring" not in state.status_lines()[-1]


def test_each_worker_has_a_line_above_the_progress():
    state = RunState(FakeClock())
    state(STARTED)
    state(block())
    before = len(state.status_lines())
    for number in (1, 0):
        news = WorkerNews(
            worker=number, device="cpu", state="idle", stream_tokens=512, sae_tokens_per_second=None, trials=()
        )
        state(news)
        state(news)
    lines = state.status_lines()
    assert len(lines) == before + 2
    assert lines[:2] == [f"worker {number} (cpu): idle · stream 512 tokens" for number in (0, 1)]
