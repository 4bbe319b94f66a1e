"""Single decisions, small enough to be checked by hand."""

import math

import pytest

from saesweep.scheduler import (
    Action,
    Ask,
    Asked,
    BlockDone,
    Complete,
    Failed,
    Opened,
    Place,
    Policy,
    Prune,
    SlotsChanged,
    State,
    Stop,
    StopRequested,
    TrialState,
    decide,
)
from saesweep.scheduler.judge import best_first, fronts

from .simulator import Simulator


def opened(policy: Policy, group: str = "g") -> State:
    """A sweep whose first asks are answered and placed."""
    state, actions = decide(State.new(policy), Opened())
    for ask in actions:
        assert isinstance(ask, Ask)
        state, _ = decide(state, Asked(number=ask.number, stratum=ask.stratum, group=group))
    return state


def judged(state: State, values: dict[int, tuple[float, ...]], tokens: int) -> tuple[State, list[Action]]:
    reports = {number: {0: v} for number, v in values.items()}
    return decide(state, BlockDone(tokens_seen=dict.fromkeys(values, tokens), values=reports))


def pruned(actions: list[Action]) -> list[int]:
    return [action.number for action in actions if isinstance(action, Prune)]


def test_first_event_asks_for_every_slot_in_equal_shares_after_the_baselines() -> None:
    policy = Policy(n_trials=7, n_slots=5, total_tokens=10, strata=("a", "b"), baseline_strata=("b",))
    state, actions = decide(State.new(policy), Opened())
    assert actions == [Ask(number=n, stratum=s) for n, s in enumerate("baaba")]
    state, actions = decide(state, Asked(number=0, stratum="b", group="g"))
    assert actions == [Place(number=0, slot=0)]


@pytest.mark.parametrize("worst_first", [True, False])
def test_lockstep_cohort_is_cut_to_a_third_whatever_the_order(worst_first: bool) -> None:
    """Optuna's successive halving keeps 9 or 1 of these 9, by the order of the calls (field notes)."""
    state = opened(Policy(n_trials=9, n_slots=9, total_tokens=90, rungs_tokens=(10, 30), quota=0))
    values = {n: (float(-n if worst_first else n),) for n in range(9)}
    state, actions = judged(state, values, 10)
    best = {6, 7, 8} if worst_first else {0, 1, 2}
    assert set(pruned(actions)) == set(range(9)) - best
    assert "of 9 in g at 10 tokens; the best 3 stay" in actions[0].reason


def test_late_joiner_is_judged_against_everything_reported_before() -> None:
    policy = Policy(n_trials=10, n_slots=9, total_tokens=90, rungs_tokens=(10,), quota=0)
    state = opened(policy)
    state, actions = judged(state, {n: (float(n),) for n in range(9)}, 10)
    assert actions[-1] == Ask(number=9, stratum="all")
    state, _ = decide(state, Asked(number=9, stratum="all", group="g"))
    late = BlockDone(tokens_seen={0: 20, 1: 20, 2: 20, 9: 10}, values={9: {0: (2.5,)}})
    _, actions = decide(state, late)
    assert pruned(actions) == [9]  # fourth of ten; three stay
    better = BlockDone(tokens_seen={0: 20, 1: 20, 2: 20, 9: 10}, values={9: {0: (1.5,)}})
    _, actions = decide(state, better)
    assert pruned(actions) == []


def test_values_that_are_not_finite_prune_even_without_a_pruner() -> None:
    state = opened(Policy(n_trials=2, n_slots=2, total_tokens=90, rungs_tokens=(10,), pruner="none"))
    state, actions = judged(state, {0: (math.nan,), 1: (9.0,)}, 10)
    assert actions == [Prune(number=0, reason="a value that it reported is not finite")]
    assert state.trials[0].rung_values == {}


def test_failed_trial_leaves_its_slot_to_the_next() -> None:
    state = opened(Policy(n_trials=3, n_slots=2, total_tokens=90))
    state, actions = decide(state, BlockDone(tokens_seen={0: 10, 1: 10}, failed={1: "NaN in its loss"}))
    assert actions == [Prune(number=1, reason="NaN in its loss"), Ask(number=2, stratum="all")]
    state, actions = decide(state, Asked(number=2, stratum="all", group="g"))
    assert actions == [Place(number=2, slot=1)]
    state, actions = decide(state, Failed(number=2, reason="corrupt checkpoint"))
    assert actions == [Prune(number=2, reason="corrupt checkpoint")]


def test_too_few_peers_judge_nobody() -> None:
    state = opened(Policy(n_trials=3, n_slots=3, total_tokens=90, rungs_tokens=(10,), min_peers=4, quota=0))
    _, actions = judged(state, {n: (float(n),) for n in range(3)}, 10)
    assert pruned(actions) == []


def test_a_trial_without_peers_is_judged_when_they_come() -> None:
    policy = Policy(n_trials=4, n_slots=3, total_tokens=90, rungs_tokens=(10, 30), min_peers=3, quota=0)
    state, asks = decide(State.new(policy), Opened())
    for ask, group in zip(asks, "aab", strict=True):
        assert isinstance(ask, Ask)
        state, _ = decide(state, Asked(number=ask.number, stratum="all", group=group))
    state, actions = judged(state, {0: (0.0,), 1: (1.0,), 2: (2.0,)}, 10)
    assert pruned(actions) == []
    state, actions = decide(state, Failed(number=2, reason="NaN in its loss"))
    state, actions = decide(state, Asked(number=3, stratum="all", group="a"))
    both = BlockDone(tokens_seen={0: 20, 1: 20, 3: 10}, values={3: {0: (-1.0,)}})
    later, actions = decide(state, both)
    assert pruned(actions) == [0, 1]
    assert later.trials[3].judged == (0,)
    # Whoever has reported the next rung in the meantime is judged by that one.
    past = BlockDone(tokens_seen={0: 30, 1: 30, 3: 10}, values={0: {1: (0.0,)}, 1: {1: (1.0,)}, 3: {0: (-1.0,)}})
    _, actions = decide(state, past)
    assert pruned(actions) == []


def test_a_trial_that_has_trained_to_its_end_is_not_judged_any_more() -> None:
    policy = Policy(n_trials=4, n_slots=2, total_tokens=90, rungs_tokens=(10,), min_peers=3, quota=0)
    state = opened(policy)
    state, _ = judged(state, {0: (0.0,), 1: (9.0,)}, 10)
    state, _ = decide(state, Failed(number=0, reason="NaN in its loss"))
    state, _ = decide(state, Asked(number=2, stratum="all", group="g"))
    last = BlockDone(tokens_seen={1: 90, 2: 10}, values={2: {0: (1.0,)}})
    _, actions = decide(state, last)
    assert Complete(number=1) in actions
    assert 1 not in pruned(actions)


def test_similar_sparsity_settings_compare_and_a_sparser_trial_that_does_better() -> None:
    """k 16, 24, 128, 200 (in octaves): the two pairs are similar; across them only a better sparser one says something."""
    policy = Policy(n_trials=4, n_slots=4, total_tokens=90, rungs_tokens=(10,), eta=2, min_peers=2, quota=0)
    state, asks = decide(State.new(policy), Opened())
    for ask, k in zip(asks, (16, 24, 128, 200), strict=True):
        assert isinstance(ask, Ask)
        state, _ = decide(state, Asked(number=ask.number, stratum="all", group="g", density=math.log2(k)))
    # Loss falls as k grows: within each pair one stays, and no sparse one loses to a dense one.
    _, actions = judged(state, {0: (8.0,), 1: (7.0,), 2: (2.0,), 3: (1.0,)}, 10)
    assert pruned(actions) == [0, 2]
    # The sparsest does best: all the others lose to it, and 24 is second of 24 > 16.
    _, actions = judged(state, {0: (0.0,), 1: (7.0,), 2: (2.0,), 3: (1.0,)}, 10)
    assert pruned(actions) == [1, 2, 3]


def test_quota_keeps_the_best_of_each_architecture() -> None:
    """One group (say, one loss mode) of two architectures: the worse architecture keeps its quota."""
    policy = Policy(n_trials=6, n_slots=6, total_tokens=90, rungs_tokens=(10,), quota=1)
    state, actions = decide(State.new(policy), Opened())
    for ask in actions:
        architecture = "topk" if ask.number < 3 else "gated"
        state, _ = decide(state, Asked(number=ask.number, stratum="all", group="g", architecture=architecture))
    _, actions = judged(state, {n: (float(n),) for n in range(6)}, 10)
    assert pruned(actions) == [2, 4, 5]


def test_pareto_front_stays_and_the_dominated_go() -> None:
    state = opened(Policy(n_trials=6, n_slots=6, total_tokens=90, rungs_tokens=(10,), eta=2, quota=0))
    values = {0: (1.0, 9.0), 1: (2.0, 9.5), 2: (5.0, 5.0), 3: (9.0, 1.0), 4: (6.0, 6.0), 5: (9.0, 9.0)}
    _, actions = judged(state, values, 10)
    assert pruned(actions) == [1, 4, 5]


def test_order_is_by_front_then_crowding_then_number() -> None:
    pool = {0: (0.0, 10.0), 1: (1.0, 9.0), 2: (5.0, 5.0), 3: (10.0, 0.0), 4: (5.0, 5.0), 5: (6.0, 6.0)}
    assert fronts(pool) == [[0, 1, 2, 4, 3], [5]]
    assert best_first(pool) == [0, 3, 2, 1, 4, 5]
    assert best_first({1: (2.0,), 0: (2.0,), 2: (1.0,)}) == [2, 0, 1]


@pytest.mark.parametrize("objectives", [2, 3])
def test_fronts_equal_the_definition(objectives: int) -> None:
    import random

    rng = random.Random(objectives)
    pool = {n: tuple(float(rng.randint(0, 6)) for _ in range(objectives)) for n in range(120)}
    left, expected = dict(pool), []
    while left:
        front = {n for n, v in left.items() if not any(w != v and all(map(float.__le__, w, v)) for w in left.values())}
        expected.append(front)
        left = {n: v for n, v in left.items() if n not in front}
    assert [set(front) for front in fronts(pool)] == expected


def test_complete_frees_the_slot_and_the_last_one_stops() -> None:
    state = opened(Policy(n_trials=1, n_slots=2, total_tokens=20))
    state, actions = decide(state, BlockDone(tokens_seen={0: 20}))
    assert actions == [Complete(number=0), Stop(reason="complete")]
    _, actions = decide(state, Opened())
    assert actions == [Stop(reason="complete")]


def test_shrunken_cohort_requeues_and_the_waiting_go_before_new_trials() -> None:
    state = opened(Policy(n_trials=6, n_slots=4, total_tokens=20))
    state, actions = decide(state, SlotsChanged(n_slots=2))
    assert actions == []
    assert [trial.number for trial in state.with_status("waiting")] == [2, 3]
    state, actions = decide(state, BlockDone(tokens_seen={0: 20, 1: 10}))
    assert actions == [Complete(number=0), Place(number=2, slot=0)]


def test_budget_is_never_promised_twice_and_pruning_frees_it() -> None:
    policy = Policy(n_trials=9, n_slots=4, total_tokens=100, rungs_tokens=(10,), tokens_budget=290, quota=1)
    state, actions = decide(State.new(policy), Opened())
    assert [type(action) for action in actions] == [Ask, Ask]
    state = opened(policy)
    state, actions = judged(state, {0: (1.0,), 1: (2.0,)}, 10)
    assert pruned(actions) == [1]
    # 10 tokens are gone and trial 0 may take 100: 180 are left for one more trial.
    assert actions[1:] == [Ask(number=2, stratum="all")]


def test_requested_stop_can_be_resumed_and_a_final_one_ends_the_live() -> None:
    state = opened(Policy(n_trials=3, n_slots=2, total_tokens=20))
    paused, actions = decide(state, StopRequested(reason="interrupted"))
    assert actions == [Stop(reason="interrupted")]
    _, actions = decide(paused, Opened())
    assert actions == [Place(number=0, slot=0), Place(number=1, slot=1)]
    over, actions = decide(state, StopRequested(reason="two hours", final=True))
    assert actions == [Prune(number=n, reason="two hours") for n in (0, 1)] + [Stop(reason="two hours")]
    assert decide(over, Opened())[1] == [Stop(reason="two hours")]


def test_unanswered_asks_are_repeated_and_known_trials_adopted() -> None:
    policy = Policy(n_trials=4, n_slots=3, total_tokens=20)
    state, _ = decide(State.new(policy), Opened())
    _, actions = decide(state, Opened())
    assert actions == [Ask(number=n, stratum="all") for n in range(3)]
    done = TrialState(number=0, stratum="all", group="g", architecture="a", status="complete", tokens_seen=20)
    orphan = TrialState(number=1, stratum="all", group="g", architecture="a", status="training", tokens_seen=10)
    _, actions = decide(State.new(policy), Opened(trials=(done, orphan)))
    assert actions == [Place(number=1, slot=0), Ask(number=2, stratum="all"), Ask(number=3, stratum="all")]


def test_second_report_of_a_rung_after_a_fall_back_changes_nothing() -> None:
    state = opened(Policy(n_trials=5, n_slots=3, total_tokens=90, rungs_tokens=(10,), quota=0))
    state, actions = judged(state, {n: (float(n),) for n in range(3)}, 10)
    assert pruned(actions) == [1, 2]
    for number in (3, 4):
        state, _ = decide(state, Asked(number=number, stratum="all", group="g"))
    # Two better trials have come since, and this time trial 0 measures worse: it was judged, and stays.
    again = BlockDone(tokens_seen={0: 10, 3: 10, 4: 10}, values={0: {0: (99.0,)}, 3: {0: (-1.0,)}, 4: {0: (-2.0,)}})
    state, actions = decide(state, again)
    assert pruned(actions) == [3]
    assert state.trials[0].rung_values == {0: (0.0,)}


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (BlockDone(tokens_seen={0: 10}), "are training"),
        (BlockDone(tokens_seen={0: 10, 1: 10}), r"rungs \[0\] not reported"),
        (BlockDone(tokens_seen={0: 5, 1: 5}, values={1: {0: (1.0,)}}), r"\[0\] not reached"),
        (BlockDone(tokens_seen={0: 10, 1: 10}, values={0: {0: (1.0,)}, 1: {0: (1.0, 2.0)}}), "different numbers"),
        (Asked(number=2, stratum="all", group="g"), "answers an ask"),
        (Failed(number=7, reason="x"), "unknown"),
        (SlotsChanged(n_slots=0), "at least 1"),
    ],
)
def test_events_that_contradict_the_state_are_bugs(event: object, message: str) -> None:
    state = opened(Policy(n_trials=2, n_slots=2, total_tokens=90, rungs_tokens=(10,)))
    with pytest.raises(ValueError, match=message):
        decide(state, event)


@pytest.mark.parametrize(
    "wrong",
    [
        {"rungs_tokens": (30, 10)},
        {"rungs_tokens": (100,)},
        {"eta": 1},
        {"n_slots": 0},
        {"strata": ()},
        {"baseline_strata": ("x",)},
        {"stratum_limits": (1, 2)},
        {"pruner": "median"},
    ],
)
def test_impossible_policies_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        Policy(**{"n_trials": 1, "n_slots": 1, "total_tokens": 100, **wrong})


def test_two_thousand_trials_keep_64_slots_busy() -> None:
    policy = Policy(
        n_trials=2000,
        n_slots=64,
        total_tokens=100,
        rungs_tokens=(10, 30),
        strata=tuple("abcde"),
    )
    sim = Simulator(policy, lambda n, rung: (float(n * 7919 % 1009), float(n * 104729 % 997)))
    sim.run()
    assert len(sim.ended) == 2000
    assert sim.trained_slots / (sim.trained_slots + sim.idle_slots) >= 0.99
    pruned_share = len(sim.prunes) / 2000
    assert 0.6 < pruned_share < 0.95


def test_a_trial_that_is_not_to_be_judged_yet_neither_falls_nor_counts() -> None:
    policy = Policy(n_trials=4, n_slots=4, total_tokens=90, rungs_tokens=(10, 80), eta=2, quota=0)
    state, asks = decide(State.new(policy), Opened())
    for ask in asks:
        assert isinstance(ask, Ask)
        late = 60 if ask.number >= 2 else 0
        state, _ = decide(state, Asked(number=ask.number, stratum="all", group="g", judged_from_tokens=late))
    state, actions = judged(state, {0: (1.0,), 1: (2.0,), 2: (0.5,), 3: (9.0,)}, 10)
    assert pruned(actions) == [1]  # the second of two, though 2 would have kept both out
    assert "place 2 of 2" in actions[0].reason  # type: ignore[union-attr]
    reports = {number: {1: (float(number),)} for number in (0, 2, 3)}
    _, actions = decide(state, BlockDone(tokens_seen=dict.fromkeys(reports, 80), values=reports))
    assert pruned(actions) == [2, 3]  # now all are judged
