"""A run watched from another terminal: the live view of the run itself, drawn from what it keeps on disk."""

from __future__ import annotations

import math
import os
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from saesweep.display.choose import is_live_terminal
from saesweep.display.saved import Leaderboard, read_leaderboard, show_leaderboard
from saesweep.display.state import RunState
from saesweep.display.text import duration, encodable
from saesweep.events import Activity, BlockProgress, WorkerNews
from saesweep.progress_file import is_dead, read_progress

WATCH_SECONDS = 0.5
_QUIET_SECONDS = 15.0
"""A run tells its news about twice a second; silence from here on is said."""


def watch_leaderboard(
    path: Path,
    stream: TextIO,
    *,
    as_json: bool = False,
    env: Mapping[str, str] | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Show a run until it ends: in place on a terminal, with its progress; else its leaderboard anew when it changes.

    Raises:
        UserError: There is none, or it is not a leaderboard.
    """
    env = os.environ if env is None else env
    if as_json or not is_live_terminal(stream, env):
        shown: Mapping[str, Any] | None = None
        for board, _ in _looks(path, sleep):
            if board is not None and board.data != shown:
                shown = board.data
                show_leaderboard(board, stream, as_json=as_json, env=env)
        _report_if_dead(path, stream)
        return
    from saesweep.display.live import LiveView, make_console

    state = RunState()
    view = LiveView(make_console(stream, env), state, ticking=False)
    last: Leaderboard | None = None
    view.start()
    try:
        for board, news in _looks(path, sleep):
            last = board or last
            _take_in(state, board, news)
            view.refresh()
    finally:
        view.stop()
    if last is not None:
        show_leaderboard(last, stream, env=env)
    _report_if_dead(path, stream)


def _looks(path: Path, sleep: Callable[[float], None]) -> Iterator[tuple[Leaderboard | None, dict[str, Any]]]:
    """Yield what there is to see, again and again: the leaderboard, None before the first block, and the latest news.

    The last leaderboard is that of the run that has ended, or whose process is gone.
    """
    while True:
        is_over = is_dead(path)  # before the files are read: what a process writes as it ends is not missed
        board = None
        # A run directory without a leaderboard is a run in its first block.
        if (path / "leaderboard.json").exists() or not (path / "experiment.yaml").exists():
            board = read_leaderboard(path)
        yield board, read_progress(path)
        if is_over or (board is not None and board.ended):
            return
        sleep(WATCH_SECONDS)


def _take_in(state: RunState, board: Leaderboard | None, news: Mapping[str, Any]) -> None:
    """Bring a view up to date; news that make no sense, such as a file that is being written, are left out."""
    best, trials = news.get("best"), news.get("trials")
    if board is not None:
        state.load(
            board.table_rows, metrics=board.metrics, matched=board.matched, best=best if type(best) is int else None
        )
    state.trials = trials if type(trials) is int else state.trials
    progress, activity, at = news.get("progress"), news.get("activity"), news.get("time_seconds")
    seconds_ago = max(0.0, time.time() - at) if isinstance(at, (int, float)) else 0.0
    try:
        if isinstance(progress, dict):
            state.advance(_progress(progress), seconds_ago=seconds_ago, keep_doing=isinstance(activity, dict))
        for data in (news.get("workers") or {}).values():
            state(WorkerNews(**{**data, "trials": tuple(data["trials"])}))
        if isinstance(activity, dict):
            state(Activity(message=str(activity["message"]), done=activity["done"], total=activity["total"]))
    except (AttributeError, KeyError, TypeError, ValueError):
        return
    if seconds_ago > _QUIET_SECONDS:
        state(Activity(message=f"no news from the run for {duration(seconds_ago)}"))


def _progress(data: Mapping[str, Any]) -> BlockProgress:
    eta = data["eta_seconds"]
    return BlockProgress(
        stream_tokens=int(data["stream_tokens"]),
        sae_tokens=int(data["sae_tokens"]),
        expected_sae_tokens=int(data["expected_sae_tokens"]),
        sae_tokens_per_second=float(data["sae_tokens_per_second"]),
        eta_seconds=math.inf if eta is None else float(eta),
        epoch=int(data["epoch"]),
        tokens={int(number): int(tokens) for number, tokens in (data.get("tokens") or {}).items()},
    )


def _report_if_dead(path: Path, stream: TextIO) -> None:
    """Say how to resume a run that did not finish."""
    if not path.is_dir():
        return
    board = read_leaderboard(path) if (path / "leaderboard.json").exists() else None
    if board is not None and board.status in ("complete", "already complete"):
        return
    command = read_progress(path).get("resume_command")
    again = shlex.join(["saesweep", "run", str(path / "experiment.yaml"), "--run-dir", str(path)])
    how = command if isinstance(command, str) and command else again
    text = f"the run was interrupted; resume with: {how}\n"
    stream.write(encodable(text, getattr(stream, "encoding", None)))
    stream.flush()
