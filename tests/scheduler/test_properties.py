"""What must hold for every policy and every order of events."""

import json
import math
import random
from collections import Counter
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from saesweep.scheduler import (
    Aim,
    Opened,
    Policy,
    Prune,
    SlotsChanged,
    State,
    StopRequested,
    decide,
)
from saesweep.scheduler.aim import Limit
from saesweep.scheduler.dominance import dominates

from .simulator import FRONT, MSE, Simulator, plain_course

AIMS = (
    MSE,
    FRONT,
    Aim(goals=MSE.goals, limits=(Limit("l0", max=4.0),)),
    Aim(goals=FRONT.goals, limits=(Limit("explained_variance", min=-9.0),)),
    Aim(goals=MSE.goals, matched=True),
)
STRATA = ("topk", "jumprelu", "gated")


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    total = draw(st.integers(20, 120))
    strata = STRATA[: draw(st.integers(1, 3))]
    n_trials = draw(st.integers(1, 24))
    limits = draw(st.sampled_from([(), tuple(draw(st.integers(0, 8)) for _ in strata)]))
    return Policy(
        n_trials=n_trials,
        n_slots=draw(st.integers(1, 6)),
        total_tokens=total,
        rungs_tokens=tuple(sorted(draw(st.sets(st.integers(1, total - 1), max_size=3)))),
        aim=draw(st.sampled_from(AIMS)),
        min_probability=draw(st.sampled_from([0.0, 0.05, 0.3])),
        quota=draw(st.integers(0, 2)),
        retry_failed=draw(st.integers(0, 2)),
        strata=strata,
        stratum_limits=limits,
        baseline_strata=tuple(draw(st.lists(st.sampled_from(strata), max_size=3))),
        pruner=draw(st.sampled_from(["rung", "none"])),
        tokens_budget=draw(st.none() | st.integers(0, 24 * total)),
    )


def simulator(policy: Policy, seed: int, groups: int = 2) -> Simulator:
    rng = random.Random(seed)

    def quality(number: int, rung: int) -> tuple[float, ...]:
        own = random.Random(1000 * seed + 10 * number + rung)
        return tuple(math.exp(0.3 * own.randint(0, 9)) for _ in policy.aim.metrics)

    courses = [
        plain_course(
            policy,
            kind=rng.choice(["plain", "other"]),
            first_rung=rng.choice([0, 0, 1]),
            target_l0=rng.choice([3.0, 9.0]) if policy.aim.matched else None,
        )
        for _ in range(policy.n_trials)
    ]
    return Simulator(
        policy,
        quality,
        group=lambda number, stratum: f"{number % groups}/{courses[number % len(courses)].target_l0}",
        course=lambda number: courses[number % len(courses)],
    )


def check_end(sim: Simulator) -> None:
    """Every trial has ended once, all that could be asked were asked, and the budget held."""
    policy = sim.policy
    assert set(sim.ended) == set(sim.state.trials) == set(range(len(sim.state.trials)))
    for number, trial in sim.state.trials.items():
        assert trial.status == {"Prune": "pruned", "Complete": "complete"}[sim.ended[number]]
        assert trial.slot is None
        if trial.status == "complete":
            assert trial.tokens_seen == policy.total_tokens
    spent = sum(sim.tokens.values())
    if policy.tokens_budget is not None:
        assert spent <= policy.tokens_budget
    new = [trial for trial in sim.state.trials.values() if trial.retry_of is None]
    asked = Counter(trial.stratum for trial in new)
    if sim.stopped == "tokens_budget":
        assert policy.tokens_budget is not None
        assert spent + policy.total_tokens > policy.tokens_budget
        return
    assert sim.stopped == "complete"
    n_baselines = min(len(policy.baseline_strata), policy.n_trials)
    if not policy.stratum_limits:
        assert len(new) == policy.n_trials
        if n_baselines == 0:
            assert max(asked[s] for s in policy.strata) - min(asked[s] for s in policy.strata) <= 1
    else:
        full = all(asked[s] >= limit for s, limit in zip(policy.strata, policy.stratum_limits, strict=True))
        assert full or len(new) == policy.n_trials
    for trial, stratum in zip(new, policy.baseline_strata[:n_baselines], strict=False):
        assert trial.stratum == stratum
    for first in new:
        attempts = [first, *(trial for trial in sim.state.trials.values() if trial.retry_of == first.number)]
        assert len(attempts) <= 1 + policy.retry_failed
        assert all(trial.failed for trial in attempts[:-1])
        assert not attempts[-1].failed or len(attempts) == 1 + policy.retry_failed or sim.stopped == "tokens_budget"


@settings(max_examples=120, deadline=None)
@given(policies(), st.integers(0, 10**6), st.sampled_from([0.0, 0.05]))
def test_every_trial_ends_once_whatever_the_order(policy: Policy, seed: int, fail: float) -> None:
    sim = simulator(policy, seed)
    sim.run(random.Random(seed + 1), fail)
    check_end(sim)
    if policy.tokens_budget is None and not policy.stratum_limits:
        assert sim.idle_slots == 0
    # Decisions depend on nothing but the events.
    state = State.new(policy)
    for event, answer in zip(sim.events, sim.answers, strict=True):
        state, actions = decide(state, event)
        assert actions == answer
    assert state == sim.state


@settings(max_examples=60, deadline=None)
@given(policies(), st.integers(0, 10**6), st.data())
def test_resizing_stopping_and_resuming_lose_no_trial(policy: Policy, seed: int, data: st.DataObject) -> None:
    sim = simulator(policy, seed)
    sim.send(Opened())
    rng = random.Random(seed)
    for _ in range(data.draw(st.integers(1, 12))):
        if sim.stopped is not None:
            break
        sim.block(rng)
        if sim.stopped is not None:
            break
        if data.draw(st.booleans()):
            n_slots = data.draw(st.integers(1, 6))
            sim.slots = {slot: number for slot, number in sim.slots.items() if slot < n_slots}
            sim.send(SlotsChanged(n_slots=n_slots))
        if data.draw(st.booleans()):
            sim.send(StopRequested(reason="interrupted"))
            assert sim.stopped == "interrupted"
            # Another process: the state comes back from a checkpoint, the cohort is empty.
            state = State.from_json(json.loads(json.dumps(sim.state.to_json(), allow_nan=False)))
            assert state == sim.state
            sim.state, sim.stopped, sim.slots = state, None, {}
            training = {trial.slot: trial.number for trial in state.trials.values() if trial.status == "training"}
            sim.send(Opened())
            assert {slot: sim.slots.get(slot) for slot in training} == training
    while sim.stopped is None:
        sim.block(rng)
    check_end(sim)


@settings(max_examples=40, deadline=None)
@given(policies(), st.integers(0, 10**6))
def test_the_order_within_a_block_decides_nothing(policy: Policy, seed: int) -> None:
    sim = simulator(policy, seed).run()
    state = State.new(policy)
    for event, answer in zip(sim.events, sim.answers, strict=True):
        backwards = event
        if hasattr(event, "tokens_seen"):
            backwards = type(event)(
                tokens_seen=dict(reversed(event.tokens_seen.items())),
                values=dict(reversed(event.values.items())),
                failed=event.failed,
            )
        state, actions = decide(state, backwards)
        assert actions == answer


@settings(max_examples=60, deadline=None)
@given(policies(), st.integers(0, 10**6))
def test_groups_do_not_see_each_other_where_kinds_differ(policy: Policy, seed: int) -> None:
    """Making one group's values absurdly bad changes no verdict of another group whose trials are of other kinds."""
    policy = replace(policy, n_slots=policy.n_trials, quota=0, tokens_budget=None)  # all side by side
    verdicts = []
    for factor in (1.0, 1e6):
        sim = simulator(policy, seed)
        plain, course = sim.quality, sim.course
        sim.course = lambda number, course=course: replace(course(number), kind=f"kind {number % 2}")
        sim.quality = lambda number, rung, plain=plain, factor=factor: tuple(
            v * (factor if number % 2 else 1.0) for v in plain(number, rung)
        )
        sim.run()
        verdicts.append([(p.number, p.rung) for p in sim.prunes if p.number % 2 == 0])
    assert verdicts[0] == verdicts[1]


@settings(max_examples=60, deadline=None)
@given(policies(), st.integers(0, 10**6))
def test_the_quota_of_every_architecture_is_never_pruned(policy: Policy, seed: int) -> None:
    sim = simulator(policy, seed).run()
    for stratum in policy.strata:
        own = [t for t in sim.state.trials.values() if t.stratum == stratum and t.reports]
        kept = [t for t in own if t.pruned_at_rung is None]
        assert len(kept) >= min(policy.quota, len(own))
        if policy.pruner == "none":
            assert kept == own


@settings(max_examples=150, deadline=None)
@given(policies(), st.integers(0, 10**6))
def test_no_pruned_trial_dominates_a_comparable_one_that_is_kept(policy: Policy, seed: int) -> None:
    """At the rung where it is pruned, in goals, limited metrics and the distance to its target, whatever the order of events."""
    sim = simulator(policy, seed)
    sim.run(random.Random(seed + 1))
    state = State.new(policy)
    for event, answer in zip(sim.events, sim.answers, strict=True):
        state, _ = decide(state, event)
        for prune in [action for action in answer if isinstance(action, Prune) and action.rung is not None]:
            trial = state.trials[prune.number]
            assert prune.rung is not None
            mine = policy.aim.costs(trial.reports[prune.rung], trial.course.target_l0)
            for other in state.trials.values():
                is_comparable = (other.group, other.course.kind) == (trial.group, trial.course.kind)
                if is_comparable and other.live and prune.rung in other.reports:
                    theirs = policy.aim.costs(other.reports[prune.rung], other.course.target_l0)
                    assert not dominates(mine, theirs)


@settings(max_examples=60, deadline=None)
@given(policies(), st.integers(0, 10**6))
def test_no_trial_is_pruned_before_its_first_rung(policy: Policy, seed: int) -> None:
    sim = simulator(policy, seed).run()
    for trial in sim.state.trials.values():
        assert trial.pruned_at_rung is None or trial.pruned_at_rung >= trial.course.first_rung
