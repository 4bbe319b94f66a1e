"""What a run writes while it is under way: the event log, how far it is, and `trials/NNNN/metrics.jsonl`.

The last has what a trial measured, lost and was steered by, one line each.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from saesweep.engines.records import ControlReading, Scores, TrialReport
from saesweep.events import (
    Activity,
    BlockDone,
    BlockProgress,
    Event,
    EventBus,
    Progressed,
    RunEnded,
    RunStarted,
    TrialMeasured,
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


class TrialLog:
    """Writes the metrics logs of a run's trials, and tells the listeners the same.

    Args:
        directory: The run directory.
        bus: The listeners.
    """

    def __init__(self, directory: RunDirectory, bus: EventBus) -> None:
        self._directory = directory
        self._bus = bus

    def go_back(self, tokens: Mapping[int, int]) -> None:
        """Drop what was written after a checkpoint.

        Args:
            tokens: Of each trial in the checkpoint, the tokens that it had seen; the logs of all others are emptied.
        """
        for file in sorted((self._directory.path / "trials").glob("*/metrics.jsonl")):
            name = file.parent.name
            if name.isascii() and name.isdecimal():  # other folders are nobody's
                _drop_after(JsonLines(file), tokens.get(int(name), -1))

    def rewind_trial(self, number: int, tokens: int) -> None:
        """Drop what was written about a trial after it had seen this many tokens."""
        _drop_after(self._file(number), tokens)

    def measured(self, number: int, tokens: int, scores: Scores) -> None:
        """Log the held-out metrics of a trial: the mean of its replicates, and each where there are several."""
        mean = dict(scores.metrics)
        each = {"replicates": list(scores.replicates)} if len(scores.replicates) > 1 else {}
        self._file(number).append({"tokens": tokens, "kind": "select", **mean, **each})
        self._bus.emit(TrialMeasured(number=number, tokens=tokens, metrics=mean, densities=scores.densities))

    def trained(self, number: int, report: TrialReport) -> None:
        """Log the losses of a trial over the block, and the schedules at its last step."""
        self._file(number).append({"tokens": report.tokens, "kind": "train", **report.values})
        self._bus.emit(TrialTrained(number=number, step=report.step, tokens=report.tokens, values=dict(report.values)))

    def steered(self, number: int, readings: Sequence[ControlReading]) -> None:
        """Log the controllers' updates of the block: the trajectory of each replicate's coefficient."""
        for reading in readings:
            self._file(number).append(
                {
                    "tokens": reading.tokens,
                    "kind": "control",
                    "replicate": reading.replicate,
                    f"details/{reading.field}": reading.coefficient,
                    "metrics/l0": reading.l0,
                }
            )

    def _file(self, number: int) -> JsonLines:
        return JsonLines(self._directory.trial(number) / "metrics.jsonl")


def _drop_after(log: JsonLines, tokens: int) -> None:
    log.drop_last(lambda line: line["tokens"] > tokens)
