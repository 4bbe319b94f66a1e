"""`trials/NNNN/metrics.jsonl`: what a trial measured, lost and was steered by, one line each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from saesweep.cohort import Slot
from saesweep.events import EventBus, TrialMeasured, TrialTrained
from saesweep.runs import JsonLines, RunDirectory
from saesweep.worker.measure import Measured


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
                _keep_until(JsonLines(file), tokens.get(int(name), -1))

    def measured(self, slot: Slot, results: Sequence[Measured], mean: dict[str, float]) -> None:
        """Log the held-out metrics of a trial: the mean of its replicates, and each where there are several."""
        each = {"replicates": [result.metrics for result in results]} if len(results) > 1 else {}
        self._file(slot.trial).append({"tokens": slot.tokens, "kind": "select", **mean, **each})
        self._bus.emit(TrialMeasured(number=slot.trial, tokens=slot.tokens, metrics=mean))

    def trained(self, slots: Sequence[Slot], losses: Mapping[str, float]) -> None:
        """Log the losses of a trial's replicates over the block, and the schedules at its last step."""
        slot = slots[0]
        step = max(0, slot.step - 1)
        knobs = slot.knobs_at(step)
        dead = [int(one.dead_F().sum()) for one in slots]
        values = {
            **{f"losses/{name}": value for name, value in losses.items()},
            "details/current_learning_rate": slot.lr.at(step),
            "details/l1_coefficient": knobs.l1_coefficient,
            "details/l0_coefficient": knobs.l0_coefficient,
            "sparsity/dead_features": dead[0] if len(dead) == 1 else sum(dead) / len(dead),
        }
        self._file(slot.trial).append({"tokens": slot.tokens, "kind": "train", **values})
        self._bus.emit(TrialTrained(number=slot.trial, step=slot.step, tokens=slot.tokens, values=values))

    def steered(self, slots: Sequence[Slot]) -> None:
        """Log the controllers' updates of the block: the trajectory of each replicate's coefficient."""
        for replicate, slot in enumerate(slots):
            if slot.control is None:
                continue
            for point in slot.control.block_points:
                self._file(slot.trial).append(
                    {
                        "tokens": point.step * slot.run.train_batch_size_tokens,
                        "kind": "control",
                        "replicate": replicate,
                        f"details/{slot.control.plan.field}": point.coefficient,
                        "metrics/l0": point.l0,
                    }
                )

    def _file(self, number: int) -> JsonLines:
        return JsonLines(self._directory.trial(number) / "metrics.jsonl")


def _keep_until(log: JsonLines, tokens: int) -> None:
    log.keep(lambda line: line["tokens"] <= tokens)
