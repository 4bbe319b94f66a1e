"""What is known of a trial's way before it begins: its kind, and how much of its schedule lies ahead at each rung."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from saesweep.specs import BaseRun, LearningRate, ramps_of

Family = Literal["k", "penalty", "steered"]
_SMALLEST = 1e-12
"""Stands for a coefficient of 0 where its logarithm is taken."""
_LATEST_WARM_UP = 0.5
"""A coefficient that rises for longer than this share of the run is forecast while it rises."""


@dataclass(frozen=True, kw_only=True)
class Course:
    """The schedule of one trial, as far as its forecasts depend on it."""

    kind: str
    """Trials of one kind change alike between a rung and their end: the architecture, its loss mode, whether it is steered."""
    family: Family
    """What its forecasts depend on, and what stands for a kind that was never recorded."""
    log_lr: float
    """Logarithm of its peak learning rate."""
    log_setting: float
    """Logarithm of its k or coefficient; 0 without one."""
    leads: tuple[float, ...]
    """By rung: logarithm of the summed learning rate of the whole run over that up to the rung; falls to 0 at the end."""
    first_rung: int
    """Index of the first rung that may judge the trial: its warm-up has ended."""
    l0: float | None = None
    """The L0 that the trial has by construction (a k); None where a penalty decides."""
    target_l0: float | None = None
    """The L0 that the trial aims at, with `objective.matched`."""
    scope: str = ""
    """What it is trained on, stream and hook: what is learned in one scope says nothing of another."""

    @property
    def scoped_kind(self) -> str:
        """The kind within its scope: whose trials share what is learned of them."""
        return f"{self.scope} / {self.kind}" if self.scope else self.kind

    @classmethod
    def of(
        cls,
        run: BaseRun,
        rung_steps: Sequence[int],
        *,
        target_l0: float | None = None,
        steered: bool = False,
        scope: str = "",
    ) -> Course:
        """Return the course of a run.

        Args:
            run: The trial's run.
            rung_steps: Steps of the rungs, ascending, the end of the run among them.
            target_l0: The L0 that the trial aims at, with `objective.matched`.
            steered: Whether a coefficient is steered there.
            scope: What it is trained on, stream and hook.
        """
        rate, field = LearningRate.of(run), run.sae.sparsity_field
        whole = rate.summed(run.total_steps)
        sums = [max(rate.summed(step), 1e-12 * whole) for step in rung_steps]
        ramp = None if field is None else ramps_of(run).get(field)
        ramp_steps = 0 if ramp is None or ramp.is_constant else ramp.steps
        if field != "k" and ramp_steps > _LATEST_WARM_UP * run.total_steps:
            ramp_steps = 0
        ready = max(rate.warm_up_steps, ramp_steps)
        return cls(
            kind=kind_of(run, steered=steered),
            family="steered" if steered else "k" if field == "k" else "penalty",
            log_lr=math.log(run.lr),
            log_setting=math.log(max(float(getattr(run.sae, field)), _SMALLEST)) if field is not None else 0.0,
            leads=tuple(math.log(whole / done) for done in sums),
            first_rung=sum(step < ready for step in rung_steps),
            l0=float(getattr(run.sae, field)) if field == "k" else None,
            target_l0=target_l0,
            scope=scope,
        )

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Course:
        """Return the course that `dataclasses.asdict` described, before or after a trip through a JSON file."""
        return cls(**{**data, "leads": tuple(data["leads"])})


def kind_of(run: BaseRun, *, steered: bool) -> str:
    """Return the kind of a trial: `topk`, `jumprelu tanh`, `steered gated`."""
    mode = getattr(run.sae, "jumprelu_sparsity_loss_mode", None)
    name = run.sae.architecture if mode is None else f"{run.sae.architecture} {mode}"
    return f"steered {name}" if steered else name
