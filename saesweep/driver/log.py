"""The event log of a run directory."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from saesweep.events import BlockDone, RunEnded, TrialTrained
from saesweep.runs import JsonLines, RunDirectory


class JsonLogListener:
    """Appends events to `events.jsonl`, with the wall-clock time; training metrics have their own files."""

    def __init__(self, directory: RunDirectory) -> None:
        self._log = JsonLines(directory.events_file)

    def __call__(self, event: Any) -> None:
        """Write one event; of a block only the numbers, the rows are in `leaderboard.json`."""
        if isinstance(event, TrialTrained):
            return
        without = {"rows": (), "references": ()} if isinstance(event, (BlockDone, RunEnded)) else {}
        data = replace(event, **without).to_json()
        for table in without:
            del data[table]
        self._log.append({"time_seconds": round(time.time(), 3), **data})
