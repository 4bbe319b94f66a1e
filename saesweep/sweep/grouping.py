"""Which trials a rung may compare: the same architecture, loss mode and hook, and a similar sparsity setting."""

from __future__ import annotations

import math

from saesweep.specs import BaseRun, ObjectiveSpec

_OCTAVES_PER_BAND = 2


def group_of(run: BaseRun, objective: ObjectiveSpec, target_l0: float | None = None) -> str:
    """Return the name of the group that a trial is judged in.

    With a target L0 it is compared with trials of the same target. Where L0 is itself a goal, domination accounts for
    sparsity and the group needs no band of it. Elsewhere a band spans a factor of four of the sparsity setting: raw loss
    at equal tokens always favours the larger k.
    """
    sae = run.sae
    parts = [run.hook_name, sae.architecture]
    mode = getattr(sae, "jumprelu_sparsity_loss_mode", None)
    if mode is not None:
        parts.append(mode)
    if target_l0 is not None:
        parts.append(f"L0 {target_l0:g}")
    elif sae.sparsity_field is not None and "l0" not in {goal.metric for goal in objective.goals}:
        value = float(getattr(sae, sae.sparsity_field))
        band = math.floor(math.log2(value) / _OCTAVES_PER_BAND) if value > 0 else "zero"
        parts.append(f"band {band}")
    return " / ".join(parts)
