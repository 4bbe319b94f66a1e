"""Schedules of a trial's coefficients and k: each starts somewhere, goes linearly to its value, and stays there.

The penalties' weights start at 0 and rise over `l1_warm_up_steps` or `l0_warm_up_steps`, as SAELens' schedulers have it (6.54,
`training/optim.py`); k goes from `k_start` over `k_anneal_steps`, as in dictionary_learning's TopK trainers.
"""

from __future__ import annotations

from dataclasses import dataclass

from saesweep.specs.base_run import BaseRun


@dataclass(frozen=True, kw_only=True)
class Ramp:
    """A value as a function of the step."""

    start: float
    end: float
    steps: int
    """Steps from `start` to `end`; 0: `end` from the first step."""

    def at(self, step: int) -> float:
        """Return the value of a step, counted from 0."""
        if step >= self.steps:
            return self.end
        return self.start + (self.end - self.start) * (step / self.steps)

    @property
    def is_constant(self) -> bool:
        """Whether it has its last value from the first step."""
        return self.steps == 0 or self.start == self.end

    def __str__(self) -> str:
        """Return it for people."""
        if self.is_constant:
            return f"{self.end:g}"
        return f"{self.start:g} to {self.end:g} over {self.steps} steps"


RAMP_FIELDS: dict[str, tuple[str, ...]] = {
    "l1_coefficient": ("l1_warm_up_steps",),
    "l0_coefficient": ("l0_warm_up_steps",),
    "k": ("k_anneal_steps", "k_start"),
}
"""Field -> the fields that say how it gets there: the time that it takes, where it starts."""


def ramps_of(run: BaseRun) -> dict[str, Ramp]:
    """Return the schedule of every coefficient that the run's architecture has, by field."""
    found = {}
    for field, (time, *_) in RAMP_FIELDS.items():
        end = getattr(run.sae, field, None)
        if end is None:
            continue
        steps = run.to_steps(duration) if (duration := getattr(run.sae, time, None)) is not None else 0
        found[field] = Ramp(start=_start(run, field, float(end)), end=float(end), steps=steps)
    return found


def _start(run: BaseRun, field: str, end: float) -> float:
    if field != "k":
        return 0.0
    stated = getattr(run.sae, "k_start", None)
    if stated is not None:
        return float(stated)
    widths = [width for width in (run.sae.d_in, run.sae.d_sae) if width is not None]
    return float(min(widths)) if widths else end
