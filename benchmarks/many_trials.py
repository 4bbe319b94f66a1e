"""What the driver costs in a sweep that has had many trials: per block, and at a restart.

    python benchmarks/many_trials.py --trials 1600 10000

Nothing is trained: a scripted worker reports, and everything else is the run's own (study.db, checkpoint, logs, event log,
leaderboard.json). In each of the blocks one of eight trials ends, and another is asked. Milliseconds are of this process' CPU time, means over the
blocks; `board` is what one write of the whole leaderboard takes, which happens for at most 2% of the time.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from saesweep.driver.log import JsonLogListener, TrialLog
from saesweep.driver.loop import SweepLoop
from saesweep.driver.publishing import Publisher
from saesweep.driver.search import Search
from saesweep.driver.standings import Leaderboard
from saesweep.events import EventBus
from saesweep.study import Study
from tests.engines.long_sweep import LongRun, long_sweep

OBJECTIVES: dict[str, dict[str, Any]] = {
    "one goal": {"maximize": "explained_variance", "subject_to": {"l0": {"max": 200}}},
    "front": {"pareto": [{"minimize": "l0"}, {"maximize": "explained_variance"}]},
}


class Meter:
    """Adds up the CPU time of calls by part; a part inside another is not counted twice."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self._inside = 0.0

    def wrap(self, owner: Any, name: str, part: str) -> None:
        """Measure a method from now on."""
        inner: Callable[..., Any] = getattr(owner, name)

        def measured(*args: Any, **kwargs: Any) -> Any:
            outside, self._inside = self._inside, 0.0
            started = time.process_time()
            try:
                return inner(*args, **kwargs)
            finally:
                took = time.process_time() - started
                self.seconds[part].append(took - self._inside)
                self._inside = outside + took

        setattr(owner, name, measured)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[1600, 10_000], help="trials behind the run")
    parser.add_argument("--blocks", type=int, default=8, help="blocks to run (default: 8)")
    arguments = parser.parse_args()
    meter = Meter()
    for owner, name, part in (
        (Leaderboard, "add", "ranking"),
        (Leaderboard, "rows", "ranking"),
        (EventBus, "emit", "events"),
        (TrialLog, "_file", "events"),
        (Publisher, "_write_board", "board"),
        (Search, "ask", "ask"),
        (Study, "tell", "tell"),
    ):
        meter.wrap(owner, name, part)
    print(
        "| trials | objective | ranking ms | events ms | one board ms | whole block ms | worst block ms | ask ms | restart s |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for n_trials in arguments.trials:
        for label, objective in OBJECTIVES.items():
            with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
                run = LongRun(Path(folder) / "run", long_sweep(n_trials, objective), n_trials, staggered=True)
                started = time.process_time()
                with run.resumed(JsonLogListener(run.directory)) as loop:
                    restart = time.process_time() - started
                    figures = _blocks(loop, meter, arguments.blocks)
            print(f"| {n_trials} | {label} | {figures} | {restart:.2f} |", flush=True)


def _blocks(loop: SweepLoop, meter: Meter, n_blocks: int) -> str:
    from saesweep.scheduler import Opened

    loop._decide(Opened())
    meter.seconds.clear()
    blocks = []
    for _ in range(n_blocks):
        started = time.process_time()
        loop._begin_blocks()
        loop._next_report()
        blocks.append(time.process_time() - started)
    asks = meter.seconds.get("ask", [])
    boards = meter.seconds["board"]
    other = (sum(blocks) - sum(asks)) / n_blocks
    figures = [
        sum(meter.seconds["ranking"]) / n_blocks,
        sum(meter.seconds["events"]) / n_blocks,
        statistics.fmean(boards) if boards else float("nan"),
        other,
        max(blocks),
        statistics.fmean(asks) if asks else float("nan"),
    ]
    return " | ".join(f"{1e3 * figure:.1f}" for figure in figures)


if __name__ == "__main__":
    main()
