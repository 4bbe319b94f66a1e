"""What must hold for every policy and every order of events."""

import json
import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from saesweep.scheduler import (
    BlockDone,
    Opened,
    Policy,
    Prune,
    SlotsChanged,
    State,
    StopRequested,
    decide,
    event_from_json,
    event_to_json,
    replay,
)
from saesweep.scheduler.rungs import SIMILAR_OCTAVES

from .simulator import Simulator

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
        eta=draw(st.integers(2, 4)),
        quota=draw(st.integers(0, 2)),
        strata=strata,
        stratum_limits=limits,
        baseline_strata=tuple(draw(st.lists(st.sampled_from(strata), max_size=3))),
        pruner=draw(st.sampled_from(["rung", "none"])),
        min_peers=draw(st.integers(1, 4)),
        tokens_budget=draw(st.none() | st.integers(0, 24 * total)),
    )


def simulator(policy: Policy, seed: int, objectives: int) -> Simulator:
    rng = random.Random(seed)
    table: dict[tuple[int, int], tuple[float, ...]] = {}

    def quality(number: int, rung: int) -> tuple[float, ...]:
        if (number, rung) not in table:
            table[number, rung] = tuple(float(rng.randint(0, 9)) for _ in range(objectives))
        return table[number, rung]

    densities = [rng.choice([None, rng.uniform(0, 4)]) for _ in range(policy.n_trials)]
    return Simulator(
        policy,
        quality,
        group=lambda number, stratum: f"{stratum}/{number % 2}",
        density=lambda number: densities[number],
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
    asked = Counter(trial.stratum for trial in sim.state.trials.values())
    if sim.stopped == "tokens_budget":
        assert policy.tokens_budget is not None
        assert spent + policy.total_tokens > policy.tokens_budget
        return
    assert sim.stopped == "complete"
    n_baselines = min(len(policy.baseline_strata), policy.n_trials)
    if not policy.stratum_limits:
        assert len(sim.state.trials) == policy.n_trials
        if n_baselines == 0:
            assert max(asked[s] for s in policy.strata) - min(asked[s] for s in policy.strata) <= 1
    else:
        full = all(asked[s] >= limit for s, limit in zip(policy.strata, policy.stratum_limits, strict=True))
        assert full or len(sim.state.trials) == policy.n_trials
    for number in range(n_baselines):
        assert sim.state.trials[number].stratum == policy.baseline_strata[number]


@settings(max_examples=120, deadline=None)
@given(policies(), st.integers(0, 10**6), st.integers(1, 3), st.sampled_from([0.0, 0.05]))
def test_every_trial_ends_once_whatever_the_order(policy: Policy, seed: int, objectives: int, fail: float) -> None:
    sim = simulator(policy, seed, objectives)
    sim.run(random.Random(seed + 1), fail)
    check_end(sim)
    if policy.tokens_budget is None and not policy.stratum_limits:
        assert sim.idle_slots == 0
    # Replay: the same decisions from the same events, through JSON too.
    recorded = [event_from_json(json.loads(json.dumps(event_to_json(event)))) for event in sim.events]
    state, answers = replay(State.new(policy), recorded)
    assert answers == sim.answers
    assert state == sim.state


@settings(max_examples=60, deadline=None)
@given(policies(), st.integers(0, 10**6), st.data())
def test_resizing_stopping_and_resuming_lose_no_trial(policy: Policy, seed: int, data: st.DataObject) -> None:
    sim = simulator(policy, seed, 1)
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


@settings(max_examples=60, deadline=None)
@given(policies(), st.integers(0, 10**6))
def test_rungs_judge_only_within_a_group(policy: Policy, seed: int) -> None:
    """Making one group's values absurdly good or bad changes no verdict of another group."""
    verdicts = []
    for factor in (1.0, 1e6):
        sim = simulator(policy, seed, 2)
        plain = sim.quality
        sim.quality = lambda number, rung, plain=plain, factor=factor: tuple(
            v * (factor if number % 2 else 1.0) for v in plain(number, rung)
        )
        sim.run()
        # Monotone scaling keeps the order within the odd groups too, so that all verdicts must be equal.
        verdicts.append([(p.number, p.rung) for p in sim.prunes])
    assert verdicts[0] == verdicts[1]


@settings(max_examples=40, deadline=None)
@given(policies(), st.integers(0, 10**6))
def test_the_order_within_a_block_decides_nothing(policy: Policy, seed: int) -> None:
    sim = simulator(policy, seed, 2).run()
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
def test_the_quota_of_every_architecture_passes_each_rung(policy: Policy, seed: int) -> None:
    sim = simulator(policy, seed, 1).run()
    for rung in range(len(policy.rungs_tokens)):
        for stratum in policy.strata:
            arrived = [t for t in sim.state.trials.values() if t.stratum == stratum and rung in t.rung_values]
            passed = [t for t in arrived if t.pruned_at_rung != rung]
            assert len(passed) >= min(policy.quota, len(arrived))
            if policy.pruner == "none":
                assert passed == arrived


@settings(max_examples=60, deadline=None)
@given(policies(), st.integers(0, 10**6))
def test_rungs_judge_only_comparable_trials(policy: Policy, seed: int) -> None:
    """Every verdict, and every trial left unjudged, follows from the trials that the rules call comparable."""
    sim = simulator(policy, seed, 1).run()
    state = State.new(policy)
    for event, answer in zip(sim.events, sim.answers, strict=True):
        before = state
        state, _ = decide(state, event)
        if not isinstance(event, BlockDone) or policy.pruner == "none":
            continue
        pruned = {a.number: a.rung for a in answer if isinstance(a, Prune) and a.rung is not None}
        for number in event.tokens_seen:
            for rung in {*state.trials[number].judged} - {*before.trials[number].judged}:
                better, worse = comparable(state, number, rung)
                assert len(better) + len(worse) + 1 >= policy.min_peers
                if pruned.get(number) == rung:
                    assert len(better) >= max(1, (len(better) + len(worse) + 1) // policy.eta)
    for trial in sim.state.trials.values():
        assert trial.pruned_at_rung is None or trial.pruned_at_rung in trial.judged


def comparable(state: State, number: int, rung: int) -> tuple[list[int], list[int]]:
    """The trials comparable with one at a rung of one goal: those that do better, and those that do not."""
    me = state.trials[number]
    better, worse = [], []
    for other in state.trials.values():
        if other.number == number or other.group != me.group or rung not in other.rung_values:
            continue
        is_better = (other.rung_values[rung], other.number) < (me.rung_values[rung], number)
        if me.density is not None and other.density is not None and abs(other.density - me.density) > SIMILAR_OCTAVES:
            is_denser = other.density > me.density
            if is_denser == is_better:  # as expected: says nothing
                continue
        (better if is_better else worse).append(other.number)
    return better, worse
