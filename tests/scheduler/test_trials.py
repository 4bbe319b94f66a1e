"""The value that holds all trials: old states stay as they were, and an event looks at its own trials alone."""

from __future__ import annotations

import random
from typing import Any

import pytest

from saesweep.scheduler import BlockDone, Policy, State, Trials, TrialState, decide
from saesweep.scheduler.trials import _CHUNK

from .simulator import MSE, Simulator, plain_course

POLICY = Policy(n_trials=10_000, n_slots=4, total_tokens=100, rungs_tokens=(10,), aim=MSE)


def trial(number: int, **fields: Any) -> TrialState:
    given = {"stratum": "all", "group": "g", "architecture": "topk", "course": plain_course(POLICY)}
    return TrialState(number=number, **{**given, **fields})


def finished(number: int) -> TrialState:
    mse = 1.0 + number % 97
    return trial(number, status="complete", tokens_seen=100, reports={0: (mse + 1, 8.0), 1: (mse, 8.0)})


@pytest.mark.parametrize("n", [0, 1, _CHUNK - 1, _CHUNK, 2 * _CHUNK + 3])
def test_trials_are_added_and_replaced_and_older_values_stay(n: int) -> None:
    before = Trials(trial(number) for number in range(n))
    after = before.updated([trial(n), trial(n + 1, status="training", slot=0)]).updated([trial(n, tokens_seen=7)])
    assert list(before) == list(range(n))
    assert len(after) == n + 2
    assert (after[n].tokens_seen, after.tally.tokens, before.tally.tokens) == (7, 7, 0)
    assert (after.tally.waiting, after.tally.training) == (tuple(range(n + 1)), {0: (n + 1,)})
    assert before.tally.waiting == tuple(range(n))
    assert after.updated([]) is after
    with pytest.raises(KeyError):
        before[n]
    with pytest.raises(KeyError):
        before[-1]
    with pytest.raises(ValueError, match=f"the next number is {n}"):
        before.updated([trial(n + 1)])


def test_a_number_that_is_missing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must be 0 to 1, but are \[0, 2\]"):
        Trials([trial(2), trial(0)])


@pytest.mark.parametrize("n_ended", [300, 3000])
def test_an_event_looks_at_its_own_trials_however_many_have_ended(
    n_ended: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = [trial(n_ended + slot, status="training", slot=slot) for slot in range(4)]
    state = State(policy=POLICY, workers={0: 4}, trials=Trials([*map(finished, range(n_ended)), *own]))
    event = BlockDone(tokens_seen={one.number: 10 for one in own}, values={one.number: {0: (0.5, 8.0)} for one in own})
    state, _ = decide(state, event)  # what rivals are is found once
    looked_at = 0
    look = Trials.__getitem__

    def counted(self: Trials, number: int) -> TrialState:
        nonlocal looked_at
        looked_at += 1
        return look(self, number)

    monkeypatch.setattr(Trials, "__getitem__", counted)
    training = state.training_on(0)
    assert training
    looked_at = 0
    decide(state, BlockDone(tokens_seen={one.number: 50 for one in training}))
    assert 0 < looked_at < 40


def test_replay_and_json_keep_the_order_of_numbers() -> None:
    sim = Simulator(
        Policy(n_trials=30, n_slots=4, total_tokens=40, rungs_tokens=(10,), aim=MSE),
        lambda number, rung: (1.0 + random.Random(number).random(), 8.0),
    ).run()
    data = sim.state.to_json()
    assert [item["number"] for item in data["trials"]] == list(range(30))
    assert State.from_json(data) == sim.state
