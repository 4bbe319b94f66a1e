"""Plain lines: what is said, and how often."""

from __future__ import annotations

import io

from saesweep.display import make_display, render_text
from saesweep.events import Activity, CheckpointSaved, Note, TrialEnded, TrialMeasured, TrialStarted, WorkerNews

from .runs import ROWS, STARTED, block, ended

JOINED = TrialStarted(
    number=3, slot=1, architecture="batchtopk", sparsity="k 32", params={"lr": 3e-4}, joined_at_tokens=0
)
MEASURED = TrialMeasured(number=3, tokens=200_000, metrics={"explained_variance": 0.5, "l0": 31.94})
PRUNED = TrialEnded(number=3, status="pruned", tokens=200_000, reason="5th of 6 at rung 1")


class FakeClock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def printed(*events, clock=None, **options) -> str:
    stream = io.StringIO()
    with make_display("plain", stream, {}, clock=clock or FakeClock(), **options) as display:
        for event in events:
            display(event)
    return stream.getvalue()


def test_one_line_per_measurement_prune_and_failure():
    text = printed(STARTED, JOINED, MEASURED, PRUNED, TrialEnded(number=4, status="failed", tokens=5, reason="NaN"))
    assert text.splitlines()[2:] == [
        "[     0s] trial 3 (batchtopk k 32) at 200k tokens (20%): L0 31.9 · expl. var 0.5000",
        "[     0s] trial 3 (batchtopk k 32) pruned at 200k tokens (20%): 5th of 6 at rung 1",
        "[     0s] trial 4 failed at 5 tokens (0%): NaN",
    ]


def test_the_opening_says_what_runs_and_why():
    lines = printed(STARTED, verbose=True).splitlines()
    assert (
        "quickstart: 12 trials of 1M tokens, 4 at once; minimize l0, minimize delta_ce -> runs/quickstart" in lines[0]
    )
    assert "note: the text has 2 epochs" in lines[1]
    assert "note: cohort of 4: memory allows 9" in lines[2]


def test_what_was_chosen_and_why_is_said_only_when_verbose():
    assert "cohort of 4" not in printed(STARTED)
    assert "the text has 2 epochs" in printed(STARTED)


def test_each_step_before_training_is_said_once():
    lines = printed(
        Activity(message="loading PyTorch"),
        Activity(message="tokenising the held-out text", done=0, total=8),
        Activity(message="tokenising the held-out text", done=4, total=8),
        STARTED,
    ).splitlines()
    assert lines[:2] == ["[     0s] loading PyTorch", "[     0s] tokenising the held-out text"]
    assert "quickstart: 12 trials" in lines[2]


def test_long_measurements_during_training_are_said_at_most_once_a_minute():
    clock, stream = FakeClock(), io.StringIO()
    display = make_display("plain", stream, {}, clock=clock)
    display(STARTED)
    began = stream.getvalue()
    for second in range(0, 100, 5):
        clock.seconds = 100.0 + second
        display(Activity(message=f"measuring {second}"))
    assert stream.getvalue().removeprefix(began).splitlines() == ["[     0s] measuring 0", "[ 1m 00s] measuring 60"]


def test_progress_at_most_once_a_minute():
    clock = FakeClock()
    stream = io.StringIO()
    display = make_display("plain", stream, {}, clock=clock)
    display(STARTED)
    shown_at = []
    for second in range(0, 180):
        clock.seconds = 100.0 + second
        before = stream.getvalue()
        display(block(block=second))
        if stream.getvalue() != before:
            shown_at.append(second)
    assert shown_at == [0, 60, 120]
    line = stream.getvalue().splitlines()[-1]
    assert "17% · 152k SAE-tokens/s · ETA 3m 12s · 4 of 12 trials done, 1 training" in line
    assert "stream 430k tokens, epoch 0" in line
    assert line.startswith("[ 2m 00s]")


def test_trials_of_an_earlier_process_are_named_from_the_leaderboard():
    assert "trial 1 (jumprelu λ 1.5) pruned" in printed(
        STARTED, block(), TrialEnded(number=1, status="pruned", tokens=9)
    )


def test_starts_and_checkpoints_only_when_verbose():
    events = (STARTED, JOINED, CheckpointSaved(block=1, stream_tokens=4096, seconds=0.25))
    assert len(printed(*events).splitlines()) == 2
    text = printed(*events, verbose=True)
    assert "trial 3 (batchtopk k 32) enters slot 1 at 0 tokens of the stream: lr=0.0003" in text
    assert "checkpoint at 4.1k tokens of the stream, 0.2 s" in text


def test_the_end_is_the_final_table_and_what_to_know():
    text = printed(STARTED, ended(resume_command="saesweep run a.yaml", status="interrupted"))
    assert render_text(ROWS, metrics=STARTED.metrics, best=3) in text
    assert text.splitlines()[-6:] == [
        "interrupted: 2 complete, 1 pruned, 1 failed, 1 training; 1.49M tokens trained in 10s (149k SAE-tokens/s)",
        "trial 4 (batchtopk k 32) failed: loss was NaN at step 3",
        "best: trial 3 (batchtopk k 32) -> runs/quickstart/best",
        "test part (read once): L0 32.1 · expl. var 0.8699",
        "note: best/ is the knee of the front",
        "the state is saved; resume with: saesweep run a.yaml",
    ]


def test_a_complete_study_says_that_nothing_was_trained():
    text = printed(STARTED, ended(status="already complete"))
    assert "already complete (2 complete, 1 pruned, 1 failed, 1 training): nothing was trained" in text
    assert "tokens trained" not in text


def test_an_end_without_trials_does_not_fail():
    text = printed(ended(status="interrupted", rows=(), best=None, best_dir=None, test_metrics={}, seconds=0.0))
    assert "interrupted: no trials" in text
    assert "best" not in text.replace("best/ is the knee", "")


def test_warnings_are_named():
    text = printed(Note(level="warning", message="2 epochs"), Note(level="info", message="hello"))
    assert text.splitlines() == ["[     0s] warning: 2 epochs", "[     0s] hello"]


def test_a_log_in_ascii_does_not_end_the_run():
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    with make_display("plain", stream, {}) as display:
        display(STARTED)
        display(block())
        display(ended())
    stream.flush()
    assert "* 1" in raw.getvalue().decode("ascii")


def test_workers_have_a_line_each_with_the_progress_and_one_when_they_are_gone():
    def news(worker: int, state: str, *trials: int) -> WorkerNews:
        return WorkerNews(
            worker=worker,
            device=f"cuda:{worker}",
            state=state,
            stream_tokens=1_200_000,
            sae_tokens_per_second=40_000.0 if trials else None,
            trials=trials,
        )

    clock = FakeClock()
    lines = printed(STARTED, news(0, "training", 3, 5), news(1, "gone"), block(), clock=clock).splitlines()
    assert lines[2:3] == ["[     0s] worker 1 (cuda:1): gone"]
    assert lines[-2:] == [
        "[     0s] worker 0 (cuda:0): training trials 3, 5 · stream 1.2M tokens · 40k SAE-tokens/s",
        "[     0s] worker 1 (cuda:1): gone",
    ]
    many = printed(STARTED, *(news(number, "idle") for number in range(20)), block()).splitlines()
    assert many[-1] == "[     0s] and 13 more workers"
