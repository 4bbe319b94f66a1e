"""What a report is made of, read from a run directory. Nothing here needs torch."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saesweep.display.saved import Leaderboard, read_leaderboard
from saesweep.errors import UserError
from saesweep.events import Row
from saesweep.files import no_run_directory, refuse_links
from saesweep.runs import RunDirectory, read_json


@dataclass(frozen=True, kw_only=True)
class Stay:
    """A trial's stay in a slot, in seconds of training time since the run's first start."""

    trial: int
    worker: int
    slot: int
    begin_seconds: float
    end_seconds: float
    status: str
    """How it ended; `interrupted` where the process did."""


@dataclass(frozen=True, kw_only=True)
class Rate:
    """One block: when it ended and how fast it was."""

    at_seconds: float
    sae_tokens_per_second: float


@dataclass(frozen=True, kw_only=True)
class RunData:
    """A run as the report needs it."""

    directory: RunDirectory
    board: Leaderboard
    metrics: Mapping[int, list[dict[str, Any]]]
    """The lines of each trial's `metrics.jsonl`."""
    stays: list[Stay]
    rates: list[Rate]
    seconds: float
    """Wall-clock time of all starts together, without the pauses between them."""
    starts: int
    expected: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    """By number of a pruned trial, the metrics that it was expected to end with."""

    @property
    def rows(self) -> tuple[Row, ...]:
        """The leaderboard, best first."""
        return self.board.rows

    @property
    def complete(self) -> list[Row]:
        """Finished trials, best first."""
        return [row for row in self.rows if row.status == "complete"]

    @property
    def best(self) -> Row | None:
        """The exported trial."""
        return next((row for row in self.rows if row.number == self.board.best), None)

    @property
    def architectures(self) -> list[str]:
        """Architectures in the order of their first trial."""
        return list(dict.fromkeys(row.architecture for row in sorted(self.rows, key=lambda row: row.number)))

    @property
    def finished_first(self) -> list[Row]:
        """Trials as plots draw them: finished ones by number, then the others; a legend shows how the first is drawn."""
        return sorted(self.rows, key=lambda row: (row.status != "complete", row.number))

    def legend_rank(self, architecture: str) -> int:
        """Return the place of an architecture in every legend."""
        return 1000 + (self.architectures.index(architecture) if architecture in self.architectures else 999)

    def has(self, metric: str) -> bool:
        """Return whether any trial has a metric."""
        return any(metric in row.metrics for row in self.rows)


def read_run(path: Path) -> RunData:
    """Read a run directory, finished or not.

    Raises:
        UserError: It is none, or its run has not finished a block yet.
    """
    if not path.is_dir():
        raise no_run_directory(path)
    refuse_links(path)
    directory = RunDirectory(path)
    board = read_leaderboard(path)
    with _located_errors(directory.events_file):
        stays, rates, seconds, starts = _times(_lines(directory.events_file))
    metrics = {row.number: _measurements(directory.trial(row.number) / "metrics.jsonl") for row in board.rows}
    return RunData(
        directory=directory,
        board=board,
        metrics=metrics,
        stays=stays,
        rates=rates,
        seconds=seconds,
        starts=starts,
        expected={row.number: _expected(directory, row.number) for row in board.rows if row.status == "pruned"},
    )


def _expected(directory: RunDirectory, number: int) -> dict[str, float]:
    """Return the metrics that a pruned trial was expected to end with; empty where its record has none."""
    file = directory.trial(number) / "trial.json"
    if not file.exists():
        return {}
    with _located_errors(file):
        found = read_json(file).get("expected") or {}
        return {str(name): math.nan if value is None else float(value) for name, value in found.items()}


def _lines(file: Path) -> list[dict[str, Any]]:
    """Return a log's lines without touching it: the run may still be writing."""
    if not file.exists():
        return []
    with _located_errors(file):
        lines = file.read_text(encoding="utf-8").split("\n")[:-1]  # what follows the last line end is torn
        found = [json.loads(line) for line in lines]
        for line in found:
            if not isinstance(line, dict):
                raise ValueError(f"a line is a {type(line).__name__}, not a mapping")
        return found


def _measurements(file: Path) -> list[dict[str, Any]]:
    """Return the lines of a `metrics.jsonl`: tokens, kind, and numbers by name."""

    def checked(line: dict[str, Any]) -> dict[str, Any]:
        numbers = {name: value for name, value in line.items() if isinstance(value, (int, float))}
        return {**numbers, "tokens": int(line["tokens"]), "kind": str(line["kind"])}

    with _located_errors(file):
        return [checked(line) for line in _lines(file)]


@contextmanager
def _located_errors(file: Path) -> Iterator[None]:
    """Turn what a damaged log does to its reader into one message."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise UserError(f"{file}: damaged, or not written by saesweep ({type(error).__name__}: {error})") from None


def _times(events: list[dict[str, Any]]) -> tuple[list[Stay], list[Rate], float, int]:
    """Return stays, rates, seconds and starts; the pauses between two starts are taken out of the clock."""
    stays: list[Stay] = []
    rates: list[Rate] = []
    placed: dict[int, tuple[int, int, float]] = {}
    now = last = offset = 0.0
    starts = 0
    has_ended = False

    def leave(trial: int, status: str) -> None:
        if trial in placed:
            worker, slot, begin = placed.pop(trial)
            stays.append(
                Stay(trial=trial, worker=worker, slot=slot, begin_seconds=begin, end_seconds=now, status=status)
            )

    for event in events:
        kind, clock = event["event"], float(event["time_seconds"])
        if not math.isfinite(clock):
            raise ValueError(f"time_seconds is {clock}")
        if kind == "RunStarted":
            for trial in list(placed):
                leave(trial, "interrupted")
            starts += 1
        if kind == "RunStarted" or has_ended:  # a finished run that is asked for again says its end once more
            offset += clock - last
        last, has_ended = clock, kind == "RunEnded"
        now = clock - offset
        if kind == "TrialStarted":
            leave(int(event["number"]), "interrupted")  # it goes back to a checkpoint, or to another worker
            placed[int(event["number"])] = (int(event.get("worker", 0)), int(event["slot"]), now)
        elif kind == "TrialEnded":
            leave(int(event["number"]), str(event["status"]))
        elif kind == "BlockDone" and event["sae_tokens_per_second"] is not None:
            rates.append(Rate(at_seconds=now, sae_tokens_per_second=float(event["sae_tokens_per_second"])))
    for trial in list(placed):
        leave(trial, "interrupted")
    return stays, rates, now, starts
