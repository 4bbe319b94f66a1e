"""Single decisions, small enough to be checked by hand."""

from typing import Any

import pytest

from saesweep.scheduler import (
    Ask,
    BlockDone,
    Complete,
    Failed,
    Opened,
    Place,
    PolicyChanged,
    Prune,
    SlotsChanged,
    State,
    Stop,
    StopRequested,
    TrialState,
    decide,
)

from .simulator import Simulator, answered, at, opened, plain_course, policy, pruned


def test_first_event_asks_for_every_slot_in_equal_shares_after_the_baselines() -> None:
    rules = policy(n_trials=7, n_slots=5, strata=("a", "b"), baseline_strata=("b",))
    state, actions = decide(State.new(rules), Opened())
    assert actions == [Ask(number=n, stratum=s) for n, s in enumerate("baaba")]
    state, actions = decide(state, answered(rules, actions[0]))  # type: ignore[arg-type]
    assert actions == [Place(number=0, slot=0)]


def test_complete_frees_the_slot_and_the_last_one_stops() -> None:
    state = opened(policy(n_trials=1, n_slots=2, total_tokens=20, rungs_tokens=()))
    state, actions = at(state, 20, {0: (1.0, 8.0)})
    assert actions == [Complete(number=0), Stop(reason="complete")]
    _, actions = decide(state, Opened())
    assert actions == [Stop(reason="complete")]


def test_shrunken_cohort_requeues_and_the_waiting_go_before_new_trials() -> None:
    state = opened(policy(n_trials=6, n_slots=4, total_tokens=20, rungs_tokens=()))
    state, actions = decide(state, SlotsChanged(n_slots=2))
    assert actions == []
    assert [trial.number for trial in state.with_status("waiting")] == [2, 3]
    state, actions = decide(state, BlockDone(tokens_seen={0: 20, 1: 10}, values={0: {0: (1.0, 8.0)}}))
    assert actions == [Complete(number=0), Place(number=2, slot=0)]


def test_budget_is_never_promised_twice_and_pruning_frees_it() -> None:
    rules = policy(n_trials=9, n_slots=4, total_tokens=100, tokens_budget=290)
    state, actions = decide(State.new(rules), Opened())
    assert [type(action) for action in actions] == [Ask, Ask]
    state = opened(rules)
    state, actions = at(state, 10, {0: (1.0, 8.0), 1: (2.0, 8.0)})
    assert pruned(actions) == [1]
    # 10 tokens are gone and trial 0 may take 100: 180 are left for one more trial.
    assert actions[1:] == [Ask(number=2, stratum="all")]


def test_requested_stop_can_be_resumed() -> None:
    state = opened(policy(n_slots=2, total_tokens=20))
    paused, actions = decide(state, StopRequested(reason="interrupted"))
    assert actions == [Stop(reason="interrupted")]
    _, actions = decide(paused, Opened())
    assert actions == [Place(number=0, slot=0), Place(number=1, slot=1)]


def test_unanswered_asks_are_repeated_and_known_trials_adopted() -> None:
    rules = policy(n_trials=4, total_tokens=20)
    state, _ = decide(State.new(rules), Opened())
    _, actions = decide(state, Opened())
    assert actions == [Ask(number=n, stratum="all") for n in range(3)]
    known: dict[str, Any] = {"stratum": "all", "group": "g", "architecture": "a", "course": plain_course(rules)}
    done = TrialState(number=0, status="complete", tokens_seen=20, **known)
    orphan = TrialState(number=1, status="training", tokens_seen=10, **known)
    _, actions = decide(State.new(rules), Opened(trials=(done, orphan)))
    assert actions == [Place(number=1, slot=0), Ask(number=2, stratum="all"), Ask(number=3, stratum="all")]


def test_second_report_of_a_rung_after_a_fall_back_changes_nothing() -> None:
    state = opened(policy())
    state, actions = at(state, 10, {0: (1.0, 8.0), 1: (1.01, 8.0), 2: (1.02, 8.0)})
    assert pruned(actions) == []
    again = BlockDone(tokens_seen={0: 10, 1: 10, 2: 10}, values={0: {0: (99.0, 8.0)}})
    state, actions = decide(state, again)
    assert pruned(actions) == []
    assert state.trials[0].reports == {0: (1.0, 8.0)}


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (BlockDone(tokens_seen={0: 10}), "are training"),
        (BlockDone(tokens_seen={0: 10, 1: 10}), r"rungs \[0\] not reported"),
        (BlockDone(tokens_seen={0: 5, 1: 5}, values={1: {0: (1.0, 8.0)}}), r"\[0\] not reached"),
        (BlockDone(tokens_seen={0: 10, 1: 10}, values={0: {0: (1.0,)}, 1: {0: (1.0, 8.0)}}), "each of mse, l0"),
        (Failed(number=7, reason="x"), "unknown"),
        (SlotsChanged(n_slots=-1), "at least 0"),
    ],
)
def test_events_that_contradict_the_state_are_bugs(event: Any, message: str) -> None:
    state = opened(policy(n_trials=2, n_slots=2))
    with pytest.raises(ValueError, match=message):
        decide(state, event)


def test_an_answer_that_was_not_asked_for_is_a_bug() -> None:
    rules = policy(n_trials=2, n_slots=2)
    with pytest.raises(ValueError, match="answers an ask"):
        decide(opened(rules), answered(rules, Ask(number=2, stratum="all")))


@pytest.mark.parametrize(
    "wrong",
    [
        {"rungs_tokens": (30, 10)},
        {"rungs_tokens": (100,)},
        {"min_probability": 1.0},
        {"n_slots": 0},
        {"strata": ()},
        {"baseline_strata": ("x",)},
        {"stratum_limits": (1, 2)},
        {"pruner": "median"},
    ],
)
def test_impossible_policies_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        policy(**wrong)


def test_two_thousand_trials_keep_64_slots_busy() -> None:
    rules = policy(n_trials=2000, n_slots=64, total_tokens=100, rungs_tokens=(10, 30), strata=tuple("abcde"))
    sim = Simulator(rules, lambda n, rung: (1.0 + n * 7919 % 1009 / 100, 8.0))
    sim.run()
    assert len(sim.ended) == 2000
    assert sim.trained_slots / (sim.trained_slots + sim.idle_slots) >= 0.99
    assert len(sim.prunes) / 2000 > 0.9


def test_failed_trials_are_asked_for_again_on_top_of_the_others() -> None:
    rules = policy(n_trials=3, n_slots=2, retry_failed=2)
    state = opened(rules)
    state, actions = decide(
        state, BlockDone(tokens_seen={0: 10, 1: 10}, values={1: {0: (1.0, 9.0)}}, failed={0: "NaN"})
    )
    (ask,) = [action for action in actions if isinstance(action, Ask)]
    assert (ask.number, ask.retry_of) == (2, 0)  # before trials with new settings
    assert State.from_json(state.to_json()) == state
    with pytest.raises(ValueError, match="answers an ask"):
        decide(state, answered(rules, ask))
    state, actions = decide(state, answered(rules, ask, retry_of=0))
    assert Place(number=2, slot=0) in actions
    state, actions = decide(state, BlockDone(tokens_seen={1: 20, 2: 0}, failed={2: "NaN"}))
    (ask,) = [action for action in actions if isinstance(action, Ask)]
    assert (ask.number, ask.retry_of) == (3, 0)
    state, actions = decide(state, answered(rules, ask, retry_of=0))
    state, actions = decide(state, BlockDone(tokens_seen={1: 30, 3: 0}, failed={3: "NaN"}))
    (ask,) = [action for action in actions if isinstance(action, Ask)]
    assert (ask.number, ask.retry_of) == (4, None)  # it has had its attempts; the third of three trials comes now
    state, actions = decide(state, answered(rules, ask))
    done = BlockDone(
        tokens_seen={1: 90, 4: 90}, values={n: {r: (1.0, 9.0) for r in rungs} for n, rungs in ((1, (1,)), (4, (0, 1)))}
    )
    state, actions = decide(state, done)
    assert actions[-1] == Stop(reason="complete")
    assert sum(trial.retry_of is None for trial in state.trials.values()) == 3


def test_a_budget_without_room_for_another_attempt_ends_the_search() -> None:
    state = opened(policy(n_trials=1, n_slots=1, retry_failed=1, tokens_budget=100))
    _, actions = decide(state, BlockDone(tokens_seen={0: 20}, failed={0: "NaN"}))
    assert actions[-1] == Stop(reason="tokens_budget")


def test_a_failed_trial_is_not_tried_again_unless_asked_for() -> None:
    state = opened(policy(n_trials=1, n_slots=1))
    _, actions = decide(state, BlockDone(tokens_seen={0: 0}, failed={0: "NaN"}))
    assert [type(action) for action in actions] == [Prune, Stop]


def test_other_rules_hold_at_once_and_a_search_that_was_over_continues_by_them() -> None:
    rules = policy(n_trials=2, n_slots=2, strata=("a", "b"))
    state = opened(rules)
    ends = {n: {r: (1.0, 9.0) for r in (0, 1)} for n in (0, 1)}
    state, actions = decide(state, BlockDone(tokens_seen={0: 90, 1: 90}, values=ends))
    assert actions[-1] == Stop(reason="complete")
    more = policy(n_trials=5, n_slots=2, strata=("c", "a", "b"))
    assert not rules.is_equivalent_to(more)
    assert rules.is_equivalent_to(policy(n_trials=2, n_slots=7, strata=("a", "b"), baseline_strata=("b",)))
    state, actions = decide(state, PolicyChanged(policy=more))
    # The added stratum has had no trial yet.
    assert actions == [Ask(number=2, stratum="c"), Ask(number=3, stratum="c")]
    assert (state.stopped, state.policy) == (None, more)
    # Asks that nobody has answered are forgotten where the rules change once more.
    state, actions = decide(state, PolicyChanged(policy=rules))
    assert actions == [Stop(reason="complete")]
