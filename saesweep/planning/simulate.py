"""How much of a search pruning leaves: the scheduler itself, driven with trials that change as recorded ones did."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from saesweep.driver.search import Rules
from saesweep.driver.trials import answer, new_trial
from saesweep.experiment import ARCHITECTURE, Experiment
from saesweep.forecast import Course, from_scale, shipped_table
from saesweep.planning.estimate import Work
from saesweep.scheduler import Aim, Ask, BlockDone, Opened, Policy, State, Stop, decide
from saesweep.specs import BaseRun, ObjectiveSpec

_MAX_TRIALS = 200
"""Longer searches are simulated with so many trials, and scaled: a plan should take no longer than a second."""

_L0_RANGE = (4.0, 400.0)
"""Between these a penalty may bring a trial."""
_SLOPE, _QUALITY_SD = 0.5, 0.3
"""Of recorded curves: the fall of log error per unit of log L0 at the end, and its standard deviation at one L0."""

Corner = tuple[dict[str, Any], BaseRun]
"""Settings at an edge of the space, and their run."""


def simulate(
    rules: Rules,
    policy: Policy,
    experiment: Experiment,
    objective: ObjectiveSpec,
    *,
    block_tokens: int,
    stream: str = "",
    seed: int = 0,
) -> Work:
    """Return what the trials of a stream do, per replicate, where they are worth what chance says.

    The ends of the trials are drawn; what they report on their way follows from the table of forecasts.

    Args:
        rules: Say what the strata mean.
        policy: Those rules for the trials of this stream alone.
        experiment: The experiment as the stream sees it: sparsity settings lie between those at the edges of its space.
        objective: What is optimised.
        block_tokens: Tokens between two decisions.
        stream: Label of the stream.
        seed: Of the random values.
    """
    rng = random.Random(seed)
    corners = {name: _corners_of(experiment, settings) for name, settings in rules.strata.items()}
    scale = policy.n_trials / min(policy.n_trials, _MAX_TRIALS)
    policy = _shortened(policy, scale)
    ends: dict[int, dict[str, float]] = {}
    state, rungs, streamed = State.new(policy), 0, 0
    state, actions = decide(state, Opened())
    while True:
        pending = list(actions)
        while asks := [action for action in pending if isinstance(action, Ask)]:
            ask = asks[0]
            pending.remove(ask)
            params, run = _between(rng.choice(corners[ask.stratum]), rng)
            target_l0 = experiment.target_l0(params)
            trial = new_trial(ask.number, params, run, objective=objective, target_l0=target_l0, stream=stream)
            suggestion = answer(ask, trial, policy)
            ends[ask.number] = _end(suggestion.course, policy.aim, rng)
            state, more = decide(state, suggestion)
            pending += more
        if any(isinstance(action, Stop) for action in pending):
            break
        seen, values = {}, {}
        for live in state.with_status("training"):
            tokens = min(live.tokens_seen + block_tokens, policy.total_tokens)
            due = state.due_rungs(live.number, tokens)
            seen[live.number] = tokens
            values[live.number] = {rung: _at_rung(ends[live.number], live.course, policy, rung, rng) for rung in due}
            rungs += sum(rung < policy.end_rung for rung in due)
        streamed += block_tokens
        state, actions = decide(state, BlockDone(tokens_seen=seen, values=values))
    ended = sum(trial.status == "complete" for trial in state.trials.values())
    return Work(
        sae_tokens=scale * state.tokens_spent,
        at_rungs=scale * rungs,
        at_end=scale * ended,
        streamed_tokens=scale * streamed,
    )


def _end(course: Course, aim: Aim, rng: random.Random) -> dict[str, float]:
    """Return what a trial is worth at its end, by metric, on the metrics' scales."""
    low, high = _L0_RANGE
    log_l0 = math.log(course.target_l0 or course.l0 or math.exp(rng.uniform(math.log(low), math.log(high))))
    return {metric: log_l0 if metric == "l0" else rng.gauss(-_SLOPE * log_l0, _QUALITY_SD) for metric in aim.metrics}


def _at_rung(
    end: Mapping[str, float], course: Course, policy: Policy, rung: int, rng: random.Random
) -> tuple[float, ...]:
    """Return what a trial reports at a rung."""
    values = []
    for metric, scaled in end.items():
        entry = shipped_table().entry(course.kind, course.family, metric)
        if entry is not None and rung < policy.end_rung and not (metric == "l0" and course.l0 is not None):
            prior = entry.at(course.leads[rung])
            scaled -= rng.gauss(prior.means[0], prior.error_sd)
        values.append(from_scale(metric, scaled))
    return tuple(values)


def _corners_of(experiment: Experiment, settings: Mapping[str, Any]) -> list[list[Corner]]:
    """Return, for each architecture that a stratum may have, the edges of the space with the stratum's settings."""
    found = []
    for name in experiment.architectures:
        if settings.get(ARCHITECTURE, name) != name:
            continue
        all_params = experiment.corner_params(name)
        # Settings of the stream itself are not in its space. Of a large space not every combination is an edge.
        own = [p for p in all_params if all(p.get(path, value) == value for path, value in settings.items())]
        known = {path for params in all_params for path in params}
        shared = {path: value for path, value in settings.items() if path in known}
        found.append([(p, experiment.resolve(p)) for p in own or [{**p, **shared} for p in all_params]])
    return found


def _shortened(policy: Policy, scale: float) -> Policy:
    """Return the rules of a search with fewer trials: everything that counts them is divided."""
    if scale <= 1:
        return policy
    n_trials = round(policy.n_trials / scale)
    return replace(
        policy,
        n_trials=n_trials,
        stratum_limits=tuple(None if limit is None else math.ceil(limit / scale) for limit in policy.stratum_limits),
        baseline_strata=policy.baseline_strata[:n_trials],
        tokens_budget=None if policy.tokens_budget is None else round(policy.tokens_budget / scale),
    )


def _between(corners: Sequence[Corner], rng: random.Random) -> Corner:
    """Return a corner with a sparsity setting drawn between those of the given ones, uniformly in the logarithm."""
    params, run = rng.choice(corners)
    name = run.sae.sparsity_field
    if name is None:
        return params, run
    values = [float(getattr(other.sae, name)) for _, other in corners]
    low, high = min(values), max(values)
    value = math.exp(rng.uniform(math.log(low), math.log(high))) if low > 0 else rng.uniform(low, high)
    return params, run.model_copy(update={"sae": run.sae.model_copy(update={name: value})})
