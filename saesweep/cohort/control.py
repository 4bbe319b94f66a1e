"""Steers a sparsity coefficient during training, so that the SAE ends with a wanted L0."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from saesweep.cohort.schedules import LearningRate
from saesweep.saes import Knobs
from saesweep.specs import BaseRun, Duration, MatchedSpec

CoefficientField = Literal["l1_coefficient", "l0_coefficient"]

_UPDATES_PER_RUN = 400
_FIRST = 0.1
"""Share of the run before the first change: L0 first falls from that of random weights, whatever the coefficient."""
_MOST_PER_UPDATE = 0.03
"""Largest change of the log coefficient in one update."""
_MEMORY = 0.25
"""The drift is fitted over the time in which the summed learning rate has grown by about this share."""
_LONGEST_LEAD = 0.35
"""The drift is extrapolated over at most this much log summed learning rate: early on it is no straight line."""
_STEEPEST = 2.0
"""Largest believed drift of log L0 per unit of log summed learning rate."""


class _Answer(NamedTuple):
    """How L0 answers to a coefficient, as measured on runs of 500 to 3,000 steps."""

    gain: float
    """Change of the log coefficient per update and per unit of log L0 that is too much: low, as L0 answers late."""
    last_gain: float
    """The same just before the freeze; it rises to this in between."""
    elasticity: float
    """What log L0 loses at once per unit of log coefficient, to tell drift from the controller's own doing. Rather too low
    than too high: the difference damps."""


_ANSWERS: Mapping[CoefficientField, _Answer] = {
    "l1_coefficient": _Answer(gain=0.03, last_gain=0.1, elasticity=0.5),
    # Thresholds move by about lr a step, so that jumprelu answers later.
    "l0_coefficient": _Answer(gain=0.03, last_gain=0.04, elasticity=0.25),
}


@dataclass(frozen=True, kw_only=True)
class ControlPlan:
    """What a controller aims at, and when it acts. All lengths in steps."""

    field: CoefficientField
    target_l0: float
    first_step: int
    """No change before this step: the coefficient warms up, L0 falls from that of random weights."""
    freeze_step: int
    """No change from this step on."""
    every_steps: int
    max_change: float

    @classmethod
    def of(cls, run: BaseRun, target_l0: float, matched: MatchedSpec) -> ControlPlan | None:
        """Return the plan of a run; None where its architecture has no coefficient to steer, or none is to be steered."""
        field = run.sae.sparsity_field
        if not matched.steer or field not in ("l1_coefficient", "l0_coefficient"):
            return None
        if getattr(run.sae, "jumprelu_sparsity_loss_mode", None) == "quadratic":
            return None  # it has the target in its loss
        total = run.total_steps
        warm_up = run.to_steps(getattr(run.sae, field.replace("coefficient", "warm_up_steps"), Duration(0)))
        return cls(
            field="l1_coefficient" if field == "l1_coefficient" else "l0_coefficient",
            target_l0=target_l0,
            first_step=max(warm_up, round(_FIRST * total)),
            freeze_step=total - run.to_steps(matched.freeze),
            every_steps=max(1, total // _UPDATES_PER_RUN),
            max_change=matched.max_change,
        )


@dataclass(frozen=True)
class ControlPoint:
    """One update of a controller, for the log."""

    step: int
    coefficient: float
    """In force from this step on."""
    l0: float
    """Mean over the batches since the update before."""


class SparsityControl:
    """A damped controller of the L0 that a run will end with: multiplicative in the coefficient, bounded in its rate.

    At a constant coefficient L0 goes on falling, about as a power of the learning rate summed so far (measured: 15% to
    20% between 70% and 100% of a short run). So the controller fits that drift, extrapolates it over the rest of the
    learning-rate schedule, and steers the predicted L0, not the present one, to the target; then freezing changes
    nothing. L0 is summed on the device and read once per update. All else is a pure function of what was read, so that a
    resumed run steers identically.

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
        self._drift = _Drift()
        self._active = torch.zeros((), dtype=torch.int64, device=device)
        self._tokens = 0
        self.block_points: list[ControlPoint] = []
        """The updates since the block began."""

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
        """Take in the firing counts of a step, counted from 0, and change the coefficient where an update is due."""
        self._lr_sum += self._lr.at(step)
        self._active += firing_F.sum()
        self._tokens += n_tokens
        if (step + 1) % self.plan.every_steps:
            return
        l0 = float(self._active) / self._tokens
        self._active.zero_()
        self._tokens = 0
        self._update(step + 1, l0)
        self.block_points.append(ControlPoint(step + 1, self.coefficient, l0))

    def _update(self, next_step: int, l0: float) -> None:
        log_lr_sum = math.log(max(self._lr_sum, 1e-30))
        answer = _ANSWERS[self.plan.field]
        own_doing = answer.elasticity * self._log_factor
        self._drift.add(log_lr_sum, math.log(max(l0, 1e-3)) + own_doing)
        if not self.plan.first_step <= next_step < self.plan.freeze_step:
            return
        ahead = min(math.log(self._lr_sum_end), log_lr_sum + _LONGEST_LEAD)
        at_end = self._drift.at(ahead) - own_doing
        done = (next_step - self.plan.first_step) / (self.plan.freeze_step - self.plan.first_step)
        gain = answer.gain + done * (answer.last_gain - answer.gain)
        change = gain * (at_end - math.log(self.plan.target_l0))
        limit = math.log(self.plan.max_change)
        self._log_factor += min(_MOST_PER_UPDATE, max(-_MOST_PER_UPDATE, change))
        self._log_factor = min(limit, max(-limit, self._log_factor))

    def state(self) -> dict[str, Any]:
        """Return the JSON part of a checkpoint."""
        return {
            "log_factor": self._log_factor,
            "lr_sum": self._lr_sum,
            "drift": self._drift.sums,
            "active": int(self._active),
            "tokens": self._tokens,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned."""
        self._log_factor, self._lr_sum, self._tokens = state["log_factor"], state["lr_sum"], state["tokens"]
        self._drift = _Drift(list(state["drift"]))
        self._active.fill_(state["active"])


class _Drift:
    """A straight line through recent (x, y), x ascending, each weighted by the x that it covers and forgotten in x."""

    def __init__(self, sums: list[float] | None = None) -> None:
        self.sums = sums or []
        """The last x; then, relative to it, the sums of weight, wx, wxx, wy and wxy."""

    def add(self, x: float, y: float) -> None:
        """Add a point."""
        if not self.sums:
            self.sums = [x, 1e-9, 0.0, 0.0, 1e-9 * y, 0.0]
            return
        last, w, wx, wxx, wy, wxy = self.sums
        step = x - last
        keep = math.exp(-step / _MEMORY)
        # The old points lie `step` further back now.
        wxx, wxy = wxx - 2 * step * wx + step * step * w, wxy - step * wy
        wx -= step * w
        self.sums = [x, keep * w + step, keep * wx, keep * wxx, keep * wy + step * y, keep * wxy]

    def at(self, x: float) -> float:
        """Return the line's value at `x`, its slope held within what is believable."""
        last, w, wx, wxx, wy, wxy = self.sums
        mean_x, mean_y = wx / w, wy / w
        spread = wxx / w - mean_x * mean_x
        slope = (wxy / w - mean_x * mean_y) / spread if spread > 1e-12 else 0.0
        slope = min(_STEEPEST, max(-_STEEPEST, slope))
        return mean_y + slope * (x - last - mean_x)
