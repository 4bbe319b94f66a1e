"""When a controller may change a trial's sparsity coefficient, and what it aims at: from the trial's settings alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from saesweep.specs.base_run import BaseRun
from saesweep.specs.objective import MatchedSpec
from saesweep.specs.units import Duration

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
