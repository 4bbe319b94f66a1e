"""Ties the experiment's search to the study and the scheduler: space, strata, baselines, policy."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saesweep.activity import doing
from saesweep.driver.blocks import BlockPlan
from saesweep.driver.outside import study_owner, study_place
from saesweep.driver.visits import Visit
from saesweep.driver.warm_start import warm_start
from saesweep.experiment import ARCHITECTURE, TARGET_L0, Experiment
from saesweep.runs import RunDirectory
from saesweep.scheduler import Aim, Policy
from saesweep.space import Space, has_settings, trial_limit
from saesweep.specs import ObjectiveSpec, SearchSpec
from saesweep.study import ExpectedEnd, Study

_ALL = "all"
MIN_PROBABILITY = 0.01
MIN_PROBABILITY_ON_FRONT = 0.1
"""Of a front, trials are worth less one by one: replayed, 32 trials keep 0.995 or more of the hypervolume (median)."""


@dataclass(frozen=True)
class Rules:
    """What the scheduler goes by on one activation stream; decided by the file and the sizes alone."""

    policy: Policy
    strata: Mapping[str, dict[str, Any]]
    """Settings that the trials of each stratum share."""


@dataclass(frozen=True)
class Search:
    """The opened study and the rules of the scheduler."""

    study: Study
    rules: Rules
    visit: Visit
    """The activation stream that the rules are for."""
    notes: tuple[str, ...] = ()
    """What was taken from an earlier study."""

    @property
    def policy(self) -> Policy:
        """The rules as the scheduler knows them."""
        return self.rules.policy

    def ask(
        self,
        number: int,
        stratum: str,
        position: int,
        expected: Mapping[int, ExpectedEnd] | None = None,
        refuses: Callable[[Mapping[str, Any]], bool] | None = None,
    ) -> dict[str, Any]:
        """Return the settings of a trial.

        Args:
            number: Of the trial.
            stratum: What it is asked for.
            position: How many trials its stream has had before it.
            expected: What running trials are expected to be worth.
            refuses: Whether settings are not worth a trial; not asked by a search that prunes nothing.
        """
        given = self.visit.settings_of(position)
        never = None if self.policy.pruner == "none" else refuses
        # A log may be repeated that was written with strata of another space: the study knows such a trial.
        settings = self.rules.strata.get(stratum) or None
        return self.study.ask(number, settings, given, expected, never, aim=(TARGET_L0,))

    def is_baseline(self, position: int) -> bool:
        """Return whether a trial is a baseline, by how many trials its stream has had before it."""
        return position < self.visit.n_baselines


def rules_of(experiment: Experiment, objective: ObjectiveSpec, blocks: BlockPlan, n_slots: int, visit: Visit) -> Rules:
    """Return the rules of a search, for `plan` and for `run` alike.

    Args:
        experiment: The whole experiment.
        objective: What is optimised.
        blocks: Block length and rungs.
        n_slots: SAEs that train at once.
        visit: The activation stream that trains.

    Raises:
        UserError: `search.stratify` names no unconditional choice of the space.
    """
    search, space = experiment.spec.search, experiment.space
    given, label, budget = search.fixed or search.baselines, visit.stream.label, visit.tokens_budget
    strata = _strata(experiment, space)
    own_strata = [_of_stream(label, name) for name in _strata_of(visit.given, strata, space)]
    strata = {_of_stream(label, name): {**settings, **visit.stratum} for name, settings in strata.items()}
    # Of the trials asked before only the number counts.
    earlier_strata = (next(iter(strata)),) * visit.n_suggested if visit.n_suggested else ()
    limits = tuple(
        trial_limit(space, search.sampler, given, {**own, **visit.stream.settings}) for own in strata.values()
    )
    policy = Policy(
        n_trials=visit.n_trials,
        n_slots=max(1, n_slots // search.replicates),  # the scheduler's slot holds all replicates of a trial
        total_tokens=blocks.total_tokens,
        rungs_tokens=blocks.rungs_tokens,
        aim=Aim.of(objective),
        min_probability=min_probability(search, len(objective.goals)),
        quota=search.min_per_architecture,
        strata=tuple(strata),
        stratum_limits=limits if any(limit is not None for limit in limits) else (),
        baseline_strata=(*earlier_strata, *own_strata[visit.n_own :]),
        pruner=search.pruner,
        retry_failed=search.retry_failed,
        tokens_budget=None if budget is None else budget // search.replicates,
    )
    return Rules(policy, strata)


def min_probability(search: SearchSpec, n_goals: int) -> float:
    """Return below which probability of being kept a trial is pruned: the file's, or the default for so many goals."""
    if search.min_probability is not None:
        return search.min_probability
    return MIN_PROBABILITY if n_goals == 1 else MIN_PROBABILITY_ON_FRONT


def open_search(
    experiment: Experiment,
    directory: RunDirectory,
    objective: ObjectiveSpec,
    rules: Rules,
    seed: int,
    visit: Visit,
    warn: Callable[[str], None] = doing,
) -> Search:
    """Open the study in the run directory, or the one that this experiment has made there.

    Args:
        experiment: The whole experiment.
        directory: Of the run.
        objective: What is optimised.
        rules: What the scheduler goes by.
        seed: Of the sampler, where the file states none.
        visit: The activation stream that trains.
        warn: Is told where the study's database does not answer for a while.

    Raises:
        UserError: The study belongs to another experiment, or the sampler does not fit the space.
    """
    search = experiment.spec.search
    space = experiment.space
    warm = None if search.warm_start is None else warm_start(Path(search.warm_start), directory, space, objective)
    study = Study.open(
        study_place(experiment, directory),
        owner=study_owner(experiment, directory),
        name=experiment.spec.name,
        directions=tuple(goal.direction for goal in objective.goals),
        space=space,
        sampler=search.sampler,
        seed=search.seed if search.seed is not None else seed,
        fingerprint=experiment.fingerprint(),
        known_fingerprints=directory.fingerprints(),
        baselines=search.fixed or search.baselines,
        history=() if warm is None else warm.trials,
        metric_names=[goal.metric for goal in objective.goals],
        warn=warn,
    )
    return Search(study, rules, visit, () if warm is None else (warm.note,))


def _strata(experiment: Experiment, space: Space) -> dict[str, dict[str, Any]]:
    """Return the settings that the trials of each stratum share, by its name.

    With matched L0 there is one stratum for each target and architecture: only values at the same target can be learned
    from together. Targets vary slowest, so that few trials reach every architecture first.
    """
    paths = [experiment.spec.search.stratify] if experiment.spec.search.stratify is not None else []
    if experiment.spec.objective is not None and experiment.spec.objective.matched is not None:
        searched = [ARCHITECTURE] if ARCHITECTURE in experiment.spec.space else []
        paths = list(dict.fromkeys([TARGET_L0, *searched, *paths]))
    if not paths:
        return {_ALL: {}}
    found = {}
    for parts in itertools.product(*(space.strata(path) for path in paths)):
        settings = {path: value for part in parts for path, value in part.items()}
        found[", ".join(str(value) for value in settings.values())] = settings
    return found


def _strata_of(
    given: Sequence[Mapping[str, Any]], strata: Mapping[str, dict[str, Any]], space: Space
) -> tuple[str, ...]:
    """Return the stratum of each baseline: of those that its settings allow, the one with the fewest so far."""
    names: list[str] = []
    for baseline in given:
        counts = Counter(names)
        fitting = [name for name, settings in strata.items() if has_settings({**settings, **baseline}, settings)]
        names.append(min(fitting or list(strata), key=lambda name: counts[name]))
    return tuple(names)


def _of_stream(label: str, stratum: str) -> str:
    """Return the name of a stratum of a stream; streams have labels where there are several."""
    if not label:
        return stratum
    return label if stratum == _ALL else f"{label} / {stratum}"
