"""What a run directory says while it is under way: the event log, and how far the run is."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from saesweep.events import (
    Activity,
    BlockDone,
    BlockProgress,
    Event,
    Progressed,
    RunEnded,
    RunStarted,
    TrialTrained,
    WorkerNews,
)
from saesweep.progress_file import ProgressFile
from saesweep.runs import JsonLines, RunDirectory, finite

_NOT_LOGGED = (TrialTrained, Activity, BlockProgress)


class JsonLogListener:
    """Appends events to `events.jsonl`, with the wall-clock time; training metrics have their own files."""

    def __init__(self, directory: RunDirectory) -> None:
        self._log = JsonLines(directory.events_file)

    def __call__(self, event: Any) -> None:
        """Write one event; of a block only the numbers, the rows are in `leaderboard.json`."""
        if isinstance(event, _NOT_LOGGED):
            return
        without = {"rows": (), "references": ()} if isinstance(event, (BlockDone, RunEnded)) else {}
        data = replace(event, **without).to_json()
        for table in without:
            del data[table]
        self._log.append({"time_seconds": round(time.time(), 3), **data})


class ProgressListener:
    """Keeps the latest news of the run in `progress.json`, for a `leaderboard --watch` in another terminal.

    Args:
        directory: The run's.
        resume_command: What resumes the run.
    """

    def __init__(self, directory: RunDirectory, resume_command: str) -> None:
        self._file = ProgressFile(directory.path)
        self._news: dict[str, Any] = {"resume_command": resume_command}

    def __call__(self, event: Event) -> None:
        """Keep one event, if it says how far the run is."""
        if isinstance(event, RunEnded):
            self._file.write(finite(self._news | {"activity": None}), now=True)
            return
        if isinstance(event, RunStarted):
            self._news |= {"metrics": event.metrics, "trials": event.trials, "total_tokens": event.total_tokens}
        if isinstance(event, WorkerNews):
            data = event.to_json()
            del data["event"]
            self._news["workers"] = {**self._news.get("workers", {}), str(event.worker): data}
        elif isinstance(event, Activity):
            self._news["activity"] = event.to_json()
        elif isinstance(event, Progressed):
            data = event.to_json()
            for table in ("rows", "references", "matched", "losses"):
                data.pop(table, None)
            self._news |= {"progress": data, "activity": None}
            if isinstance(event, BlockDone):
                self._news["best"] = event.best
        else:
            return
        self._file.write(finite(self._news))
