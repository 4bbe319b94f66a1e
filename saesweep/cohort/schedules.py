"""Coefficients as pure functions of the step, equal to SAELens' schedulers.

Source: SAELens 6.54 `training/optim.py` (definition); checked against it in tests/interop.
"""

from __future__ import annotations

from dataclasses import dataclass

from saesweep.saes import Knobs
from saesweep.specs import BaseRun, Duration


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
