"""What follows the step, as pure functions of a run: the learning rate, ramps of coefficients and k, and when a controller acts.

No numeric library. The learning rate equals SAELens' schedulers (6.54, `training/optim.py`; checked against it in
tests/interop). The penalties' weights start at 0 and rise over `l1_warm_up_steps` or `l0_warm_up_steps`, as SAELens' schedulers
have it; k goes from `k_start` over `k_anneal_steps`, as in dictionary_learning's TopK trainers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from saesweep.specs.architectures import StandardSpec
from saesweep.specs.base_run import BaseRun
from saesweep.specs.objective import MatchedSpec
from saesweep.specs.units import Duration


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

    def summed(self, step: int) -> float:
        """Return the sum of the rates of the first `step` steps; of a cosine its integral, which is within 1%."""
        decay_start = self.total_steps - self.decay_steps
        warming = min(step, self.warm_up_steps)
        total = self.lr * warming * (warming + 1) / (2 * self.warm_up_steps) if warming else 0.0
        total += self._main_sum(max(0, min(step, decay_start) - self.warm_up_steps))
        if self.decay_steps and step > decay_start:
            begin, done = self.lr if self.name == "constant" else self.lr_end, step - decay_start
            total += begin * (done - done * (done - 1) / (2 * self.decay_steps))
        return total

    def _main_sum(self, steps: int) -> float:
        """Return the sum over the first steps between warm-up and decay."""
        if self.name == "constant":
            return self.lr * steps
        period = max(1, self.total_steps - self.decay_steps - self.warm_up_steps)
        cycles = 0
        if self.name == "cosineannealingwarmrestarts":
            period = max(1, period // self.n_restart_cycles)
            cycles, steps = divmod(steps, period)
        half = (self.lr - self.lr_end) / 2
        waves = half * period / math.pi * math.sin(math.pi * steps / period)
        return (self.lr_end + half) * (cycles * period + steps) + waves


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


CoefficientField = Literal["l1_coefficient", "l0_coefficient"]

_READS_PER_RUN = 400
_CHANGES = 6
_FIRST = 0.1
"""Share of the run before the first change: L0 first falls from that of random weights, whatever the coefficient."""
_LAST_STRETCH = 0.227
"""Share of the log time from first to last change that lies between the last two (45% to 70% of the run): so long that batches
which are denser or sparser for a while (measured: a few percent over 50 steps) do not pass for drift."""


@dataclass(frozen=True, kw_only=True)
class ControlPlan:
    """What a controller aims at, and when it acts. All lengths in steps."""

    field: CoefficientField
    target_l0: float
    change_steps: tuple[int, ...]
    """Before these steps the coefficient changes; ascending, the last one is the freeze."""
    every_steps: int
    """L0 is read from the device once in so many steps."""
    max_change: float

    @property
    def freeze_step(self) -> int:
        """No change after this step has begun."""
        return self.change_steps[-1]

    @classmethod
    def of(cls, run: BaseRun, target_l0: float, matched: MatchedSpec) -> ControlPlan | None:
        """Return the plan of a run; None where its architecture has no coefficient to steer, or none is to be steered."""
        field = run.sae.sparsity_field
        if not matched.steer or field not in ("l1_coefficient", "l0_coefficient"):
            return None
        if getattr(run.sae, "jumprelu_sparsity_loss_mode", None) == "quadratic":
            return None  # it has the target in its loss
        total = run.total_steps
        freeze = total - run.to_steps(matched.freeze)
        warm_up = run.to_steps(getattr(run.sae, field.replace("coefficient", "warm_up_steps"), Duration(0)))
        first = min(freeze, max(round(_FIRST * total), 2 * warm_up, 1))
        # Geometric, since the drift is a power of time.
        before = [(1 - _LAST_STRETCH) * i / (_CHANGES - 2) for i in range(_CHANGES - 1)]
        changes = {round(first * (freeze / first) ** share) for share in (*before, 1.0)}
        return cls(
            field="l1_coefficient" if field == "l1_coefficient" else "l0_coefficient",
            target_l0=target_l0,
            change_steps=tuple(sorted(changes)),
            every_steps=max(1, total // _READS_PER_RUN),
            max_change=matched.max_change,
        )


@dataclass(frozen=True, kw_only=True)
class PAnnealingPlan:
    """When the exponent of the standard SAE's penalty changes, and to what (p-annealing, arXiv 2408.00113).

    As dictionary_learning's `PAnnealTrainer` has it (0.1.0, `trainers/p_anneal.py`): the values of p, and the steps after
    which they hold.
    """

    update_steps: tuple[int, ...]
    """After the training step of each number, counted from 0, p takes the next value."""
    values: tuple[float, ...]
    """The first is where p starts, so that the first update changes nothing."""
    queue_length: int
    """Steps over which penalties are compared before a change."""

    @classmethod
    def of(cls, run: BaseRun) -> PAnnealingPlan | None:
        """Return the plan of a run; None where its SAE does not anneal p."""
        sae = run.sae
        if not isinstance(sae, StandardSpec) or sae.p_end is None:
            return None
        n, change = sae.n_sparsity_updates, sae.p_end - sae.lp_norm
        return cls(
            update_steps=_evenly(run.to_steps(sae.anneal_start), run.to_steps(sae.anneal_end), n),
            values=tuple(sae.lp_norm + change * i / (n - 1) for i in range(n)),
            queue_length=sae.sparsity_queue_length,
        )

    def __str__(self) -> str:
        """Return it for people."""
        return (
            f"{self.values[0]:g} to {self.values[-1]:g} in {len(self.values) - 1} changes from step {self.update_steps[1]} "
            f"to {self.update_steps[-1]}, the coefficient adapted at each"
        )


def _evenly(first: int, last: int, n: int) -> tuple[int, ...]:
    """Return n whole numbers from `first` to `last`, as `torch.linspace(first, last, n, dtype=int)` rounds them."""
    step = (last - first) / (n - 1)
    return tuple(int(first + step * i) if i < n / 2 else int(last - step * (n - 1 - i)) for i in range(n))
