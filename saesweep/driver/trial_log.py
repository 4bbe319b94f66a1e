"""`trials/NNNN/metrics.jsonl`: what a trial measured, lost and was steered by, one line each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from saesweep.engines.records import ControlReading, Scores, TrialReport
from saesweep.events import EventBus, TrialMeasured, TrialTrained
from saesweep.runs import JsonLines, RunDirectory


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

    def go_back_one(self, number: int, tokens: int) -> None:
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
