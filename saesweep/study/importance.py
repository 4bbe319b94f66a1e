"""How much each searched parameter mattered: Optuna's PED-ANOVA, among trials that all have the parameter.

Parameters that every trial has are weighed over all trials. Those that only some architectures have are weighed within each
architecture, beside the common ones: over all trials, a parameter's absence would be taken for a value of it.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import optuna
from optuna.trial import FrozenTrial, TrialState

MIN_TRIALS = 8
"""Finished trials below which an importance is left out: the better tenth of fewer is a single one, and chance."""


@dataclass(frozen=True, kw_only=True)
class Importance:
    """The importances within one group of trials, for one goal."""

    group: str
    """`all trials`, or an architecture."""
    goal: str
    """Such as `minimize delta_ce`."""
    n_trials: int
    """Finished trials of the group."""
    shares: Mapping[str, float]
    """Share by dotted path, the largest first; they sum to 1. Empty where the group is too small or all its values are one."""


def importances(study: optuna.Study, goals: Sequence[str], architectures: Mapping[int, str]) -> list[Importance]:
    """Return the importances over all trials, then within each architecture that has parameters of its own.

    Args:
        study: Optuna's own view of a study.
        goals: Its goals as text, in the order of the values.
        architectures: Architecture by trial number; trials that are not among them are left out.
    """
    done = [
        trial
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if trial.number in architectures
    ]
    common = _shared(done)
    groups: list[tuple[str, list[FrozenTrial], list[str]]] = [("all trials", done, common)] if common else []
    for architecture in dict.fromkeys(architectures[trial.number] for trial in done):
        own = [trial for trial in done if architectures[trial.number] == architecture]
        names = _shared(own)
        if set(names) - set(common):
            groups.append((architecture, own, names))
    return [
        Importance(
            group=group,
            goal=goal,
            n_trials=len(trials),
            shares=_shares(study, trials, names, index, goal) if len(trials) >= MIN_TRIALS else {},
        )
        for group, trials, names in groups
        for index, goal in enumerate(goals)
    ]


def _shared(trials: Sequence[FrozenTrial]) -> list[str]:
    """Return the parameters that every trial has, with more than one value among them."""
    names = trials[0].params if trials else {}
    return [
        name
        for name in names
        if all(name in trial.params for trial in trials) and len({repr(trial.params[name]) for trial in trials}) > 1
    ]


def _shares(
    study: optuna.Study, trials: Sequence[FrozenTrial], names: Sequence[str], index: int, goal: str
) -> dict[str, float]:
    sign = 1.0 if goal.startswith("minimize") else -1.0  # PED-ANOVA speaks of what makes a value low
    values = [sign * trial.values[index] for trial in trials]
    if len(set(values)) < 2 or not names:
        return {}
    alone = optuna.create_study(directions=study.directions)
    alone.add_trials(trials)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of experimental and few-trial notices
        found = optuna.importance.get_param_importances(
            alone, params=list(names), target=lambda trial: sign * trial.values[index]
        )
    # Ranges by condition are called `path|condition`; within a group only one of them occurs.
    return {name.partition("|")[0]: share for name, share in sorted(found.items(), key=lambda item: -item[1])}
