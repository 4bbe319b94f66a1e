"""The scheduler against a plain reference that counts everything anew and compares every trial with every other one."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saesweep.forecast import shipped_table
from saesweep.scheduler import (
    Ask,
    BlockDone,
    Opened,
    Policy,
    Prune,
    SlotsChanged,
    State,
    Suggested,
    Trials,
    decide,
    rungs,
)
from saesweep.scheduler import refill as refilling
from saesweep.scheduler.rivals import Rivals, Section

from . import reference
from .simulator import Simulator
from .varied import AIMS, Curves, varied_policies


@pytest.fixture(autouse=True)
def known_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table that ships: its entries differ between kinds and metrics."""
    monkeypatch.setattr(rungs, "shipped_table", shipped_table)


class Checked(Simulator):
    """Holds every state and every verdict against the reference."""

    def send(self, event: Any) -> None:
        before = self.state
        super().send(event)
        check_counts(self.state)
        if isinstance(event, BlockDone):
            check_verdicts(before, event, self.answers[self.events.index(event)])


def check_counts(state: State) -> None:
    tally = state.trials.tally
    assert state.trials == Trials(state.trials.values()) == {n: state.trials[n] for n in range(len(state.trials))}
    assert tally.waiting == tuple(trial.number for trial in reference.live(state) if trial.status == "waiting")
    assert state.with_status("training") == [t for t in reference.live(state) if t.status == "training"]
    assert tally.n_live == len(reference.live(state))
    assert state.tokens_spent == sum(trial.tokens_seen for trial in state.trials.values())
    free = reference.free_slots(state)
    assert refilling._free_slots(state) == len(free)
    assert refilling._next_slots(state, len(free) + 1) == free
    assert refilling._to_retry(state) == reference.to_retry(state)
    assert refilling._suggested_by_stratum(state) == reference.asked_by_stratum(state)
    assert refilling._affordable(state) == reference.affordable(state)
    again = Rivals(state.policy.aim, state.policy.end_rung).changed((None, trial) for trial in state.trials.values())
    assert state.rivals._fronts == again._fronts
    assert state.rivals.sections.keys() == again.sections.keys()
    for kind, sections in again.sections.items():
        assert state.rivals.sections[kind].keys() == sections.keys()
        for place, section in sections.items():
            assert_same(state.rivals.sections[kind][place], section, state.rivals, again)


def assert_same(one: Section, other: Section, of_one: Rivals, of_other: Rivals) -> None:
    names = ({number: group for group, number in rivals.groups.items()} for rivals in (of_one, of_other))
    ours, theirs = ([name[g] for g in section.groups] for name, section in zip(names, (one, other), strict=True))
    assert ours == theirs
    pairs = list(zip(one._arrays, other._arrays, strict=True))
    for place, (own, again) in enumerate(pairs):
        if place != 1:  # the numbers of groups, by the order in which they came
            np.testing.assert_array_equal(own, again)


def judged_state(before: State, event: BlockDone) -> tuple[State, list[Prune]]:
    """The state that was judged within a decision, and the verdict."""
    seen: list[tuple[State, list[Prune]]] = []

    def judge(state: State, worker: int) -> list[Prune]:
        found = rungs.judge(state, worker)
        seen.append((state, found))
        return found

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(import_module("saesweep.scheduler.decide"), "judge", judge)
        decide(before, event)
    return seen[0] if seen else (before, [])


def check_verdicts(before: State, event: BlockDone, answer: list[Any]) -> None:
    """With one worker, every trial is pruned that the reference prunes, for the same reason and with the same digits."""
    state, prunes = judged_state(before, event)
    if not any(event.values.values()):
        assert prunes == []
        return
    expected = reference.judge(state, shipped_table())
    assert reference.said(prunes) == reference.as_prunes(state, expected)
    for prune in prunes:
        found = expected[prune.number]
        assert ("the bar is" in prune.reason) == (found.rival is not None)
        assert found.rival is None or f"the bar is trial {found.rival}, " in prune.reason
        assert prune in answer
    ends = {n: one.forecasts for n, one in reference.outlooks(state, shipped_table()).items()}
    known = {n: {m: f.value for m, f in own.items() if f.is_known} for n, own in ends.items()}
    assert rungs.expected_ends(state) == (known if state.policy.pruner == "rung" else {})


@settings(max_examples=30, deadline=None)
@given(varied_policies(), st.integers(0, 10**6), st.sampled_from([0.0, 0.05]), st.data())
def test_one_worker_decides_as_the_reference_to_the_last_digit(
    policy: Policy, seed: int, fail: float, data: st.DataObject
) -> None:
    curves, rng = Curves(policy, seed), random.Random(seed)
    sim = Checked(policy, curves.quality, group=curves.group, course=curves.course)
    sim.send(Opened())
    for block in range(12):
        if sim.stopped is not None:
            break
        sim.block(rng, fail)
        if sim.stopped is None and block == 5 and data.draw(st.booleans()):
            n_slots = data.draw(st.integers(1, 14))
            sim.slots = {slot: number for slot, number in sim.slots.items() if slot < n_slots}
            sim.send(SlotsChanged(n_slots=n_slots))


def test_sixty_four_slots_decide_as_the_reference() -> None:
    """Many rivals of several kinds, some of them further ahead, a front among the finished ones."""
    for seed, aim in enumerate((AIMS[5], AIMS[2], AIMS[4])):
        policy = Policy(
            n_trials=160, n_slots=64, total_tokens=100, rungs_tokens=(20, 50), aim=aim, min_probability=0.05, quota=1
        )
        curves = Curves(policy, seed)
        sim = Checked(policy, curves.quality, group=curves.group, course=curves.course).run(random.Random(seed))
        assert sum(prune.rung is not None for prune in sim.prunes) > 20


class SeveralWorkers:
    """Workers that report in any order; each verdict is held against the reference, as far as it concerns their own trials."""

    def __init__(self, policy: Policy, curves: Curves, n_workers: int) -> None:
        self.policy, self.curves = policy, curves
        self.state = replace(State.new(policy), workers=dict.fromkeys(range(n_workers), policy.n_slots))
        self.prunes: list[Prune] = []

    def send(self, event: Any) -> list[Any]:
        before = self.state
        self.state, actions = decide(before, event)
        check_counts(self.state)
        for action in actions:
            if isinstance(action, Ask):
                like = action.number if action.retry_of is None else action.retry_of
                answer = Suggested(
                    number=action.number,
                    stratum=action.stratum,
                    group=self.curves.group(like, action.stratum),
                    course=self.curves.course(like),
                    retry_of=action.retry_of,
                )
                self.send(answer)
        if isinstance(event, BlockDone):
            self.check(before, event)
        return actions

    def check(self, before: State, event: BlockDone) -> None:
        state, prunes = judged_state(before, event)
        expected = reference.outlooks(state, shipped_table()) if prunes else {}
        left = Counter(t.architecture for t in state.trials.values() if t.status != "pruned" and t.reports)
        left.subtract(state.trials[prune.number].architecture for prune in prunes)
        pruned = {prune.number for prune in prunes}
        for prune in prunes:
            trial, found = state.trials[prune.number], expected[prune.number]
            assert trial.status == "waiting" or trial.worker == event.worker
            assert found.probability < self.policy.min_probability
            assert prune.expected == {m: f.value for m, f in found.forecasts.items() if f.is_known}
            assert left[trial.architecture] >= self.policy.quota
            for other in reference.dominated(state, prune.number):
                # One that is kept is dominated by none that is pruned, unless it trains elsewhere and has no hopes either.
                is_elsewhere = other.status == "training" and other.worker != event.worker
                assert other.number in pruned or (
                    is_elsewhere and expected[other.number].probability < self.policy.min_probability
                )
        self.prunes += prunes

    def block(self, worker: int, rng: random.Random, fail: float) -> None:
        seen: dict[int, int] = {}
        values: dict[int, dict[int, tuple[float, ...]]] = {}
        failed: dict[int, str] = {}
        for trial in self.state.training_on(worker):
            seen[trial.number] = min(trial.tokens_seen + rng.randint(1, 40), self.policy.total_tokens)
            if rng.random() < fail:
                failed[trial.number] = "NaN in its loss"
                continue
            due = self.state.due_rungs(trial.number, seen[trial.number])
            if due:
                values[trial.number] = {rung: self.curves.quality(trial.number, rung) for rung in due}
        self.send(BlockDone(tokens_seen=seen, values=values, failed=failed, worker=worker))


@settings(max_examples=25, deadline=None)
@given(varied_policies(max_slots=4), st.integers(2, 5), st.integers(0, 10**6), st.sampled_from([0.0, 0.05]))
def test_several_workers_prune_what_is_hopeless_among_all_trials(
    policy: Policy, n_workers: int, seed: int, fail: float
) -> None:
    several, rng = SeveralWorkers(policy, Curves(policy, seed), n_workers), random.Random(seed)
    several.send(Opened())
    for _ in range(20):
        training = [worker for worker in several.state.workers if several.state.training_on(worker)]
        if several.state.stopped is not None or not training:
            break
        worker = rng.choice(training)
        if rng.random() < 0.1:
            several.send(SlotsChanged(n_slots=rng.randint(0, 4), worker=worker))
        else:
            several.block(worker, rng, fail)


def test_several_workers_prune_about_as_much_as_one() -> None:
    """Eight workers of eight slots end most of the trials that one with 64 slots ends."""
    policy = Policy(n_trials=200, n_slots=8, total_tokens=100, rungs_tokens=(20, 50), aim=AIMS[2], min_probability=0.05)
    several, rng = SeveralWorkers(policy, Curves(policy, 2), 8), random.Random(0)
    several.send(Opened())
    while several.state.stopped is None:
        several.block(rng.choice([w for w in range(8) if several.state.training_on(w)]), rng, 0.0)
    curves = Curves(policy, 2)
    one = Simulator(replace(policy, n_slots=64), curves.quality, group=curves.group, course=curves.course)
    one.run(random.Random(0))
    by_rungs = sum(prune.rung is not None for prune in one.prunes)
    assert by_rungs > 50
    assert len(several.prunes) > 0.8 * by_rungs
