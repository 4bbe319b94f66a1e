"""Learning rate and coefficients as pure functions of the step, equal to SAELens' schedulers.

Source: SAELens 6.54 `training/optim.py` (definition); checked against it in tests/interop.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from saesweep.saes import Knobs
from saesweep.specs import BaseRun, Duration


@dataclass(frozen=True, kw_only=True)
class LearningRate:
    """Linear warm-up from lr/N, a main course, then linear decay to 0. All lengths in steps."""

    lr: float
    lr_end: float
    name: str
    total_steps: int
    warm_up_steps: int
    decay_steps: int
    n_restart_cycles: int = 1

    @classmethod
    def of(cls, run: BaseRun) -> LearningRate:
        """Return the schedule that a run declares."""
        return cls(
            lr=run.lr,
            lr_end=run.lr / 10 if run.lr_end is None else run.lr_end,
            name=run.lr_scheduler_name,
            total_steps=run.total_steps,
            warm_up_steps=run.to_steps(run.lr_warm_up_steps),
            decay_steps=run.to_steps(run.lr_decay_steps),
            n_restart_cycles=run.n_restart_cycles,
        )

    def at(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        if step < self.warm_up_steps:
            return self.lr * (step + 1) / self.warm_up_steps
        decay_start = self.total_steps - self.decay_steps
        if step >= decay_start and self.decay_steps:
            begin = self.lr if self.name == "constant" else self.lr_end
            return begin * max(0.0, 1 - (step - decay_start) / self.decay_steps)
        if self.name == "constant":
            return self.lr
        main_steps = max(1, decay_start - self.warm_up_steps)
        position = step - self.warm_up_steps
        if self.name == "cosineannealingwarmrestarts":
            main_steps = max(1, main_steps // self.n_restart_cycles)
            position %= main_steps
        return self.lr_end + (self.lr - self.lr_end) * (1 + math.cos(math.pi * position / main_steps)) / 2


@dataclass(frozen=True, kw_only=True)
class KnobSchedule:
    """The coefficients and k of one trial: linear warm-up from 0, then constant."""

    l1_coefficient: float = 0.0
    l1_warm_up_steps: int = 0
    l0_coefficient: float = 0.0
    l0_warm_up_steps: int = 0
    k: float = 0.0

    @classmethod
    def of(cls, run: BaseRun) -> KnobSchedule:
        """Return the schedule that a run declares; fields its architecture lacks stay 0."""
        sae = run.sae

        def steps(field: str) -> int:
            duration = getattr(sae, field, Duration(0))
            return run.to_steps(duration)

        return cls(
            l1_coefficient=getattr(sae, "l1_coefficient", 0.0),
            l1_warm_up_steps=steps("l1_warm_up_steps"),
            l0_coefficient=getattr(sae, "l0_coefficient", 0.0),
            l0_warm_up_steps=steps("l0_warm_up_steps"),
            k=getattr(sae, "k", 0.0),
        )

    def at(self, step: int) -> Knobs:
        """Return the knobs of a step, counted from 0."""
        return Knobs(
            l1_coefficient=self.l1_coefficient * _warmed(step, self.l1_warm_up_steps),
            l0_coefficient=self.l0_coefficient * _warmed(step, self.l0_warm_up_steps),
            k=self.k,
        )


def _warmed(step: int, warm_up_steps: int) -> float:
    return 1.0 if warm_up_steps <= 0 else min(1.0, step / warm_up_steps)
