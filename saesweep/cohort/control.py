"""Steers a sparsity coefficient during training, so that the SAE ends with a wanted L0."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from saesweep.saes import Knobs
from saesweep.specs import ControlPlan, LearningRate

_TRANSIENT = 0.4
"""Share of the time after a change in which L0 still answers to it; the drift is fitted on the rest."""
_ELASTICITY, _MIN_ELASTICITY, _MAX_ELASTICITY = 0.6, 0.3, 0.7
"""What log L0 loses per unit of log coefficient before the changes made have shown it, and what of it is believed then: the
last change has only the rest of the run, at a falling learning rate, to show (measured: 0.4 to 0.6 of it does)."""
_MIN_CHANGE = 0.1
"""Smaller changes of the log coefficient say nothing about it."""
_DAMPING = 0.8
"""Share of the computed change that is made, as long as another one follows."""
_MAX_CHANGE = 0.7
"""Largest change of the log coefficient at once: a factor of two."""
_STEEPEST = 1.0
"""Largest believed fall of log L0 per unit of log summed learning rate; it is not believed to rise."""
_LEAD, _USUAL_FALL = 0.4, 0.5
"""The fitted fall holds for so much log summed learning rate; over what is left beyond, the mean of it and the usual one. Falls
flatten: measured (stories260K; standard, gated, jumprelu at L0 8 to 32) 1 to 2 at 10% of a run, 0.1 to 0.6 after 70%, and from
anywhere to the end 0.3 to 0.8."""


@dataclass(frozen=True)
class ControlPoint:
    """One reading of a controller, for the log."""

    step: int
    coefficient: float
    """In force from this step on."""
    l0: float
    """Mean over the batches since the reading before."""


class SparsityControl:
    """Brings the L0 that a run will end with to a target, by a few damped changes of the coefficient, and then freezes it.

    At a constant coefficient L0 keeps falling, about as a power of the learning rate summed so far (measured: 10% to 20%
    between 70% and 100% of a short run). So each change looks at the time since the one before, in which the coefficient was
    constant, fits the drift there, extrapolates it over the rest of the learning-rate schedule, and corrects for what
    would be missed at the end. All is a pure function of the L0 read, so that a resumed run steers identically.

    Args:
        plan: What to aim at, and when.
        start: The coefficient that the trial states.
        lr: The learning-rate schedule.
        device: Training device.
    """

    def __init__(self, plan: ControlPlan, start: float, lr: LearningRate, device: torch.device | str) -> None:
        self.plan = plan
        self.start = start
        self._lr = lr
        self._lr_sum_end = sum(lr.at(step) for step in range(lr.total_steps))
        self._lr_sum = 0.0
        self._log_factor = 0.0
        self._elasticity = _ELASTICITY
        self._before: tuple[float, float] | None = None
        self._readings: list[tuple[int, float, float]] = []
        self._active = torch.zeros((), dtype=torch.int64, device=device)
        self._tokens = 0
        self.block_points: list[ControlPoint] = []
        """The readings since the block began."""

    @property
    def coefficient(self) -> float:
        """The coefficient in force, warm-up apart."""
        return self.start * math.exp(self._log_factor)

    def applied(self, knobs: Knobs) -> Knobs:
        """Return a step's knobs with the steered coefficient in place of the stated one."""
        factor = math.exp(self._log_factor)
        if self.plan.field == "l1_coefficient":
            return replace(knobs, l1_coefficient=knobs.l1_coefficient * factor)
        return replace(knobs, l0_coefficient=knobs.l0_coefficient * factor)

    def observe(self, step: int, firing_F: Tensor, n_tokens: int) -> None:
        """Take in the firing counts of a step, counted from 0, and change the coefficient where that is due."""
        self._lr_sum += self._lr.at(step)
        self._active += firing_F.sum()
        self._tokens += n_tokens
        is_change = step + 1 in self.plan.change_steps
        if not is_change and (step + 1) % self.plan.every_steps:
            return
        l0 = float(self._active) / self._tokens
        self._active.zero_()
        self._tokens = 0
        if step < self.plan.freeze_step:
            self._readings.append((step + 1, math.log(max(self._lr_sum, 1e-30)), math.log(max(l0, 1e-3))))
        if is_change:
            self._change()
            self._readings.clear()
        self.block_points.append(ControlPoint(step + 1, self.coefficient, l0))

    def _change(self) -> None:
        first, last = self._readings[0][0], self._readings[-1][0]
        x, y, slope = _line([(x, y) for step, x, y in self._readings if step >= first + _TRANSIENT * (last - first)])
        fall = min(_STEEPEST, max(0.0, -slope))
        lead = math.log(self._lr_sum_end) - x
        at_end = y - fall * min(lead, _LEAD) - (fall + _USUAL_FALL) / 2 * max(0.0, lead - _LEAD)
        if self._before is not None:
            made, answer = self._log_factor - self._before[0], self._before[1] - at_end
            if abs(made) > _MIN_CHANGE:
                seen = min(_MAX_ELASTICITY, max(_MIN_ELASTICITY, answer / made))
                self._elasticity = (self._elasticity + seen) / 2
        self._before = self._log_factor, at_end
        damping = 1.0 if last == self.plan.freeze_step else _DAMPING
        change = damping * (at_end - math.log(self.plan.target_l0)) / self._elasticity
        limit = math.log(self.plan.max_change)
        self._log_factor += min(_MAX_CHANGE, max(-_MAX_CHANGE, change))
        self._log_factor = min(limit, max(-limit, self._log_factor))

    def state(self) -> dict[str, Any]:
        """Return the JSON part of a checkpoint."""
        return {
            "log_factor": self._log_factor,
            "lr_sum": self._lr_sum,
            "elasticity": self._elasticity,
            "before": self._before,
            "readings": [list(reading) for reading in self._readings],
            "active": int(self._active),
            "tokens": self._tokens,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned."""
        self._log_factor, self._lr_sum, self._tokens = state["log_factor"], state["lr_sum"], state["tokens"]
        self._elasticity = state["elasticity"]
        self._before = None if state["before"] is None else (state["before"][0], state["before"][1])
        self._readings = [(step, x, y) for step, x, y in state["readings"]]
        self._active.fill_(state["active"])


def _line(points: Sequence[tuple[float, float]]) -> tuple[float, float, float]:
    """Return the mean x, the mean y and the slope of the straight line through points."""
    n = len(points)
    x, y = sum(p for p, _ in points) / n, sum(q for _, q in points) / n
    spread = sum((p - x) ** 2 for p, _ in points)
    return x, y, sum((p - x) * (q - y) for p, q in points) / spread if spread > 0 else 0.0
