"""How much of a search pruning leaves: the scheduler itself, driven with trials of random quality."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from saesweep.scheduler import Ask, Asked, BlockDone, Opened, Policy, State, Stop, decide
from saesweep.specs import BaseRun, ObjectiveSpec
from saesweep.sweep.estimate import Work
from saesweep.sweep.grouping import density_of, group_of

_MOST_TRIALS = 200
"""Longer searches are simulated with so many trials, and scaled: a plan should take no longer than a second."""


def simulate(
    policy: Policy, corners: Sequence[Sequence[BaseRun]], objective: ObjectiveSpec, *, block_tokens: int, seed: int = 0
) -> Work:
    """Return what the trials of a search do, per replicate, where their values at the rungs are random.

    Args:
        policy: The rules; its strata are the architectures' names, or a single one.
        corners: For each architecture its runs at the edges of the space: sparsity settings lie between theirs.
        objective: What is optimised.
        block_tokens: Tokens between two decisions.
        seed: Of the random values.
    """
    rng = random.Random(seed)
    by_name = {runs[0].sae.architecture: runs for runs in corners}
    scale = policy.n_trials / min(policy.n_trials, _MOST_TRIALS)
    policy = Policy(**{**vars(policy), "n_trials": min(policy.n_trials, _MOST_TRIALS)})
    state, rungs, streamed = State.new(policy), 0, 0
    state, actions = decide(state, Opened())
    while True:
        pending = list(actions)
        while asks := [action for action in pending if isinstance(action, Ask)]:
            ask = asks[0]
            pending.remove(ask)
            runs = by_name.get(ask.stratum) or rng.choice(list(by_name.values()))
            run = _between(runs, rng)
            answer = Asked(
                number=ask.number,
                stratum=ask.stratum,
                group=group_of(run, None if objective.matched is None else rng.choice(objective.matched.l0)),
                architecture=run.sae.architecture,
                density=density_of(run, objective),
            )
            state, more = decide(state, answer)
            pending += more
        if any(isinstance(action, Stop) for action in pending):
            break
        seen, values = {}, {}
        for trial in state.with_status("training"):
            tokens = min(trial.tokens_seen + block_tokens, policy.total_tokens)
            due = state.due_rungs(trial.number, tokens)
            seen[trial.number] = tokens
            values[trial.number] = {rung: tuple(rng.random() for _ in objective.goals) for rung in due}
            rungs += len(due)
        streamed += block_tokens
        state, actions = decide(state, BlockDone(tokens_seen=seen, values=values))
    ended = sum(trial.status == "complete" for trial in state.trials.values())
    return Work(
        sae_tokens=scale * state.tokens_spent,
        at_rungs=scale * rungs,
        at_end=scale * ended,
        streamed_tokens=scale * streamed,
    )


def _between(runs: Sequence[BaseRun], rng: random.Random) -> BaseRun:
    """Return a run with a sparsity setting drawn between those of the given ones, uniformly in the logarithm."""
    run = rng.choice(runs)
    name = run.sae.sparsity_field
    if name is None:
        return run
    values = [float(getattr(other.sae, name)) for other in runs]
    low, high = min(values), max(values)
    value = math.exp(rng.uniform(math.log(low), math.log(high))) if low > 0 else rng.uniform(low, high)
    return run.model_copy(update={"sae": run.sae.model_copy(update={name: value})})
