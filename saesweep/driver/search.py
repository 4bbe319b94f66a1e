"""Ties the experiment's search to the study and the scheduler: space, strata, baselines, policy."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saesweep.driver.blocks import BlockPlan
from saesweep.driver.segments import Segment
from saesweep.driver.space import space_view
from saesweep.driver.warm_start import warm_start
from saesweep.experiment import ARCHITECTURE, TARGET_L0, Experiment
from saesweep.runs import RunDirectory
from saesweep.scheduler import Aim, Policy
from saesweep.specs import ObjectiveSpec
from saesweep.study import ExpectedEnd, SpaceView, Study, trial_limit

_ALL = "all"


@dataclass(frozen=True)
class Rules:
    """What the scheduler goes by on one activation stream; decided by the file and the sizes alone."""

    policy: Policy
    strata: Mapping[str, dict[str, Any]]
    """Settings that the trials of each stratum share."""
    n_baselines: int
    """The first trials (of a segment, where there is one) are baselines: this many."""


@dataclass(frozen=True)
class Search:
    """The opened study and the rules of the scheduler."""

    study: Study
    rules: Rules
    segment: Segment | None = None
    """The stay on one activation stream that the rules are for; None where all trials share one."""
    notes: tuple[str, ...] = ()
    """What was taken from an earlier study."""

    @property
    def policy(self) -> Policy:
        """The rules as the scheduler knows them."""
        return self.rules.policy

    def ask(self, number: int, stratum: str, expected: Mapping[int, ExpectedEnd] | None = None) -> dict[str, Any]:
        """Return the settings of a trial; `expected` is what running trials are expected to be worth."""
        given = None if self.segment is None else self.segment.settings_of(number)
        return self.study.ask(number, self.rules.strata[stratum] or None, given, expected)

    def is_baseline(self, number: int) -> bool:
        """Return whether a trial that is asked now is a baseline."""
        first = 0 if self.segment is None else self.segment.first_trial
        return 0 <= number - first < self.rules.n_baselines


def rules_of(
    experiment: Experiment, objective: ObjectiveSpec, blocks: BlockPlan, n_slots: int, segment: Segment | None = None
) -> Rules:
    """Return the rules of a search, for `plan` and for `run` alike.

    Args:
        experiment: The whole experiment.
        objective: What is optimised.
        blocks: Block length and rungs.
        n_slots: SAEs that train at once.
        segment: The stay on one activation stream; None where all trials share one.

    Raises:
        UserError: `search.stratify` names no unconditional choice of the space.
    """
    search, space = experiment.spec.search, space_view(experiment)
    given = search.fixed or search.baselines
    strata = _strata(experiment, space)
    baseline_strata = _strata_of(given if segment is None else segment.given, strata, space)
    budget = search.tokens_budget if segment is None else segment.tokens_budget
    shared: Mapping[str, Any] = {}
    if segment is not None:
        shared = segment.stream.settings
        # Trials of the segments before have other strata; only their numbers count.
        strata = {_of_stream(segment, name): {**settings, **segment.stratum} for name, settings in strata.items()}
        before = (next(iter(strata)),) * segment.first_trial
        baseline_strata = (*before, *(_of_stream(segment, name) for name in baseline_strata))
    limits = tuple(trial_limit(space, search.sampler, given, {**own, **shared}) for own in strata.values())
    policy = Policy(
        n_trials=experiment.n_trials if segment is None else segment.n_trials,
        n_slots=max(1, n_slots // search.replicates),  # the scheduler's slot holds all replicates of a trial
        total_tokens=blocks.total_tokens,
        rungs_tokens=blocks.rungs_tokens,
        aim=Aim.of(objective),
        min_probability=search.min_probability,
        quota=search.min_per_architecture,
        strata=tuple(strata),
        stratum_limits=limits if any(limit is not None for limit in limits) else (),
        baseline_strata=baseline_strata,
        pruner=search.pruner,
        tokens_budget=None if budget is None else budget // search.replicates,
    )
    n_baselines = 0 if search.fixed else len(search.baselines if segment is None else segment.given)
    return Rules(policy, strata, n_baselines)


def open_search(
    experiment: Experiment,
    directory: RunDirectory,
    objective: ObjectiveSpec,
    rules: Rules,
    seed: int,
    segment: Segment | None = None,
) -> Search:
    """Open the study in the run directory, or the one that this experiment has made there.

    Args:
        experiment: The whole experiment.
        directory: Of the run.
        objective: What is optimised.
        rules: What the scheduler goes by.
        seed: Of the sampler, where the file states none.
        segment: The stay on one activation stream; None where all trials share one.

    Raises:
        UserError: The study belongs to another experiment, or the sampler does not fit the space.
    """
    search = experiment.spec.search
    space = space_view(experiment)
    warm = None if search.warm_start is None else warm_start(Path(search.warm_start), directory, space, objective)
    study = Study.open(
        str(directory.study_file),
        name=experiment.spec.name,
        directions=tuple(goal.direction for goal in objective.goals),
        space=space,
        sampler=search.sampler,
        seed=search.seed if search.seed is not None else seed,
        fingerprint=experiment.fingerprint(),
        baselines=search.fixed or search.baselines,
        history=() if warm is None else warm.trials,
    )
    return Search(study, rules, segment, () if warm is None else (warm.note,))


def _strata(experiment: Experiment, space: SpaceView) -> dict[str, dict[str, Any]]:
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
    given: Sequence[Mapping[str, Any]], strata: Mapping[str, dict[str, Any]], space: SpaceView
) -> tuple[str, ...]:
    """Return the stratum of each baseline: of those that its settings allow, the one with the fewest so far."""
    names: list[str] = []
    for baseline in given:
        asked = Counter(names)
        fitting = [name for name, settings in strata.items() if space.has_settings({**settings, **baseline}, settings)]
        names.append(min(fitting or list(strata), key=lambda name: asked[name]))
    return tuple(names)


def _of_stream(segment: Segment, stratum: str) -> str:
    return segment.stream.label if stratum == _ALL else f"{segment.stream.label} / {stratum}"
