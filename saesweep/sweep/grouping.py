"""Which trials a rung may compare: the same hook, architecture and loss mode, and similar sparsity settings."""

from __future__ import annotations

from saesweep.scheduler import Ask, Asked
from saesweep.specs import BaseRun, ObjectiveSpec
from saesweep.sweep.trials import Trial


def answer(ask: Ask, trial: Trial, objective: ObjectiveSpec) -> Asked:
    """Return what the scheduler needs to know of the trial that answers an ask."""
    place = f"{trial.stream} / " if trial.stream else ""  # rungs and quotas compare within a stream
    return Asked(
        number=ask.number,
        stratum=ask.stratum,
        group=place + group_of(trial.run, trial.target_l0),
        architecture=place + trial.run.sae.architecture,
        density=density_of(trial.run, objective),
        judged_from_tokens=trial.judged_from_tokens,
    )


def group_of(run: BaseRun, target_l0: float | None = None) -> str:
    """Return the name of the group that a trial is judged in; with a target L0, that of the trials that share it."""
    parts = [run.hook_name, run.sae.architecture]
    mode = getattr(run.sae, "jumprelu_sparsity_loss_mode", None)
    if mode is not None:
        parts.append(mode)
    if target_l0 is not None:
        parts.append(f"L0 {target_l0:g}")
    return " / ".join(parts)


def density_of(run: BaseRun, objective: ObjectiveSpec) -> float | None:
    """Return a trial's sparsity setting in octaves, larger where more latents are active.

    None where L0 is itself a goal (domination then accounts for sparsity) or a target (the group has one). Elsewhere
    raw loss at equal tokens favours the larger k, so that rungs compare similar settings only.
    """
    if objective.matched is not None or "l0" in {goal.metric for goal in objective.goals}:
        return None
    return run.sae.density_octaves()
