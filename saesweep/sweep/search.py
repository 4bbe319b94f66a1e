"""Ties the experiment's search to the study and the scheduler: space, strata, baselines, policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saesweep.experiment import Experiment
from saesweep.runs import RunDirectory
from saesweep.scheduler import Policy
from saesweep.specs import ObjectiveSpec
from saesweep.study import Study
from saesweep.sweep.sizing import BlockPlan
from saesweep.sweep.space import space_view
from saesweep.sweep.warm_start import warm_start

_ALL = "all"


@dataclass(frozen=True)
class Search:
    """The opened study and the rules of the scheduler."""

    study: Study
    policy: Policy
    strata: Mapping[str, dict[str, Any]]
    """Settings that the trials of each stratum share."""
    n_baselines: int
    notes: tuple[str, ...] = ()
    """What was taken from an earlier study."""


def open_search(
    experiment: Experiment,
    directory: RunDirectory,
    objective: ObjectiveSpec,
    blocks: BlockPlan,
    n_slots: int,
    seed: int,
) -> Search:
    """Open the study in the run directory, or the one that this experiment has made there.

    Raises:
        UserError: The study belongs to another experiment, or the sampler does not fit the space.
    """
    search = experiment.spec.search
    space = space_view(experiment)
    given = search.fixed or search.baselines
    warm = None if search.warm_start is None else warm_start(Path(search.warm_start), directory, space, objective)
    study = Study.open(
        str(directory.study_file),
        name=experiment.spec.name,
        directions=tuple(goal.direction for goal in objective.goals),
        space=space,
        sampler=search.sampler,
        seed=search.seed if search.seed is not None else seed,
        fingerprint=experiment.fingerprint(),
        baselines=given,
        history=() if warm is None else warm.trials,
    )
    if search.stratify is not None:
        settings = space.strata(search.stratify)
        strata = {str(setting[search.stratify]): setting for setting in settings}
        baseline_strata = tuple(str(b.get(search.stratify, next(iter(strata)))) for b in given)
    else:
        strata = {_ALL: {}}
        baseline_strata = (_ALL,) * len(given)
    limits = tuple(study.trial_limit(setting) for setting in strata.values())
    policy = Policy(
        n_trials=experiment.n_trials,
        n_slots=max(1, n_slots // search.replicates),  # the scheduler's slot holds all replicates of a trial
        total_tokens=blocks.total_tokens,
        rungs_tokens=blocks.rungs_tokens,
        eta=search.eta,
        quota=search.min_per_architecture,
        strata=tuple(strata),
        stratum_limits=limits if any(limit is not None for limit in limits) else (),
        baseline_strata=baseline_strata,
        pruner=search.pruner,
        min_peers=search.least_peers,
        tokens_budget=None if search.tokens_budget is None else search.tokens_budget // search.replicates,
    )
    return Search(study, policy, strata, len(search.baselines), () if warm is None else (warm.note,))
