"""Single decisions, small enough to be checked by hand."""

import math
import random
from typing import Any

import pytest

from saesweep.scheduler import (
    Action,
    Aim,
    Ask,
    Asked,
    BlockDone,
    Complete,
    Failed,
    Opened,
    Place,
    Policy,
    PolicyChanged,
    Prune,
    SlotsChanged,
    State,
    Stop,
    StopRequested,
    TrialState,
    decide,
    rungs,
)
from saesweep.scheduler.aim import GoalAim, Limit
from saesweep.scheduler.dominance import fronts

from .simulator import FRONT, MSE, Simulator, plain_course, table


def policy(**fields: Any) -> Policy:
    given: dict[str, Any] = {"n_trials": 3, "n_slots": 3, "total_tokens": 90, "rungs_tokens": (10,), "aim": MSE}
    return Policy(**{**given, **fields})


def answered(rules: Policy, ask: Ask, **fields: Any) -> Asked:
    course = {name: fields.pop(name) for name in ("kind", "family", "l0", "target_l0", "first_rung") if name in fields}
    given = {"number": ask.number, "stratum": ask.stratum, "group": "g", "course": plain_course(rules, **course)}
    return Asked(**{**given, **fields})


def opened(rules: Policy, **by_number: dict[str, Any]) -> State:
    """A sweep whose first asks are answered and placed; `t1={...}` changes the answer of trial 1."""
    state, actions = decide(State.new(rules), Opened())
    for ask in actions:
        assert isinstance(ask, Ask)
        state, _ = decide(state, answered(rules, ask, **by_number.get(f"t{ask.number}", {})))
    return state


def at(state: State, tokens: int, values: dict[int, tuple[float, ...]], rung: int = 0) -> tuple[State, list[Action]]:
    reports = {number: {rung: v} for number, v in values.items()}
    seen = {
        trial.number: tokens if trial.number in values else trial.tokens_seen for trial in state.with_status("training")
    }
    return decide(state, BlockDone(tokens_seen=seen, values=reports))


def pruned(actions: list[Action]) -> list[int]:
    return [action.number for action in actions if isinstance(action, Prune)]


def test_first_event_asks_for_every_slot_in_equal_shares_after_the_baselines() -> None:
    rules = policy(n_trials=7, n_slots=5, strata=("a", "b"), baseline_strata=("b",))
    state, actions = decide(State.new(rules), Opened())
    assert actions == [Ask(number=n, stratum=s) for n, s in enumerate("baaba")]
    state, actions = decide(state, answered(rules, actions[0]))  # type: ignore[arg-type]
    assert actions == [Place(number=0, slot=0)]


def test_a_trial_far_behind_is_pruned_and_one_that_may_still_win_is_not() -> None:
    """The error of a forecast is 2%, its size unsure: of two, one in 1.2 times the other's mse wins once in 600, in 1.05 once in 14."""
    state, actions = at(opened(policy()), 10, {0: (1.0, 8.0), 1: (1.2, 8.0), 2: (1.05, 8.0)})
    assert pruned(actions) == [1]
    assert isinstance(actions[0], Prune)
    assert actions[0].reason == (
        "at 10 tokens its forecast is mse 1.2 (1.15 to 1.252); the bar is trial 0, forecast mse 1 (0.9582 to 1.044); "
        "0.16% likely to end best"
    )
    assert actions[0].rung == 0
    assert state.trials[1].status == "pruned"


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_the_order_within_a_block_decides_nothing(order: tuple[int, ...]) -> None:
    values = {0: (1.0, 8.0), 1: (1.2, 8.0), 2: (1.05, 8.0)}
    _, actions = at(opened(policy()), 10, {number: values[number] for number in order})
    assert pruned(actions) == [1]


def test_a_better_trial_that_comes_later_ends_those_that_are_between_two_rungs() -> None:
    rules = policy(n_trials=2, n_slots=2, rungs_tokens=(10, 50))
    state = opened(rules)
    state, actions = at(state, 10, {0: (1.0, 8.0)})
    assert pruned(actions) == []
    state, actions = at(state, 10, {1: (0.5, 8.0)})
    assert pruned(actions) == [0]


def test_a_finished_trial_is_the_bar_and_is_never_pruned() -> None:
    rules = policy(n_trials=2, n_slots=1)
    state = opened(rules)
    state, _ = at(state, 10, {0: (1.1, 8.0)})
    state, actions = at(state, 90, {0: (1.0, 8.0)}, rung=1)
    assert actions[0] == Complete(number=0)
    state, _ = decide(state, answered(rules, actions[1]))  # type: ignore[arg-type]
    _, actions = at(state, 10, {1: (1.3, 8.0)})
    assert pruned(actions) == [1]
    assert "the bar is trial 0, finished with mse 1;" in actions[0].reason  # type: ignore[union-attr]


def test_finished_trials_teach_what_happens_between_a_rung_and_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every trial so far lost half its mse on the way: the next one is not measured against their ends as it stands."""
    monkeypatch.setattr(rungs, "shipped_table", lambda: table(shared_sd=1.0))
    rules = policy(n_trials=5, n_slots=1)
    state, actions = decide(State.new(rules), Opened())
    for number in range(4):
        state, _ = decide(state, answered(rules, next(a for a in actions if isinstance(a, Ask))))
        state, actions = at(state, 10, {number: (2.0 - 0.01 * number, 8.0)})
        state, actions = at(state, 90, {number: (1.0 - 0.01 * number, 8.0)}, rung=1)
    moments = state.evidence["plain", "mse", 0]
    assert moments.n == 4
    assert moments.with_change[0] / 4 == pytest.approx(math.log(0.5), abs=0.02)
    state, _ = decide(state, answered(rules, next(a for a in actions if isinstance(a, Ask))))
    _, actions = at(state, 10, {4: (2.4, 8.0)})  # it will end at 1.2, which is worse than 0.97
    assert pruned(actions) == [4]
    assert "forecast is mse 1.19" in actions[0].reason  # type: ignore[union-attr]


def test_no_trial_is_pruned_before_its_first_rung_or_without_a_pruner() -> None:
    values = {0: (1.0, 8.0), 1: (9.0, 8.0), 2: (9.0, 8.0)}
    _, actions = at(opened(policy(), t1={"first_rung": 1}), 10, values)
    assert pruned(actions) == [2]
    _, actions = at(opened(policy(pruner="none")), 10, values)
    assert pruned(actions) == []


def test_a_limit_prunes_what_will_miss_it_however_good_it_is() -> None:
    limited = Aim(goals=MSE.goals, limits=(Limit("l0", max=16.0),))
    state = opened(policy(aim=limited))
    # Trial 0 has the best mse and will end at L0 40; 1 is feasible; 2 may still come below 16.
    _, actions = at(state, 10, {0: (0.5, 40.0), 1: (1.0, 15.0), 2: (1.0, 16.5)})
    assert pruned(actions) == [0]
    assert "under 0.1% likely to keep l0 <= 16 (forecast l0 40" in actions[0].reason  # type: ignore[union-attr]


def test_while_none_is_feasible_the_likeliest_is_kept_once_no_other_is_to_come() -> None:
    limited = Aim(goals=MSE.goals, limits=(Limit("l0", max=16.0),))
    state = opened(policy(aim=limited))
    _, actions = at(state, 10, {0: (0.5, 60.0), 1: (1.0, 40.0), 2: (1.0, 50.0)})
    assert pruned(actions) == [0, 2]  # the nearest to the limit
    more = opened(policy(aim=limited, n_trials=9))
    _, actions = at(more, 10, {0: (0.5, 60.0), 1: (1.0, 40.0), 2: (1.0, 50.0)})
    assert pruned(actions) == [0, 1, 2]


def test_a_dead_sae_is_nobodys_rival() -> None:
    """It has the smallest L0 of all, and is no answer."""
    rules = policy(n_trials=2, n_slots=1, aim=Aim(goals=(GoalAim("l0", maximize=False),)))
    state = opened(rules)
    state, _ = at(state, 10, {0: (0.01,)})
    state, actions = at(state, 90, {0: (0.0,)}, rung=1)
    state, _ = decide(state, answered(rules, actions[1]))  # type: ignore[arg-type]
    _, actions = at(state, 10, {1: (20.0,)})
    assert pruned(actions) == []


def test_a_k_is_the_final_l0_from_the_first_report_on() -> None:
    limited = Aim(goals=MSE.goals, limits=(Limit("l0", max=16.0),))
    k = {"kind": "topk", "family": "k"}
    state = opened(policy(aim=limited), t0={**k, "l0": 16.0}, t1={**k, "l0": 17.0}, t2={**k, "l0": 16.0})
    _, actions = at(state, 10, {0: (1.0, 16.0), 1: (0.5, 17.0), 2: (1.0, 16.0)})
    assert pruned(actions) == [1]


def test_a_rival_counts_only_where_it_will_end_near_the_target() -> None:
    matched = Aim(goals=MSE.goals, matched=True)
    at_16 = {f"t{n}": {"target_l0": 16.0, "kind": f"kind {n}"} for n in range(3)}
    _, actions = at(opened(policy(aim=matched), **at_16), 10, {0: (1.0, 16.0), 1: (0.5, 30.0), 2: (0.5, 9.0)})
    assert pruned(actions) == []  # and steering may yet bring the two there
    # One that has a k ends at its target for certain.
    at_16["t1"] |= {"kind": "topk", "family": "k", "l0": 16.0}
    _, actions = at(opened(policy(aim=matched), **at_16), 10, {0: (1.0, 16.0), 1: (0.5, 16.0), 2: (0.7, 9.0)})
    assert pruned(actions) == [0, 2]


def test_only_dominated_trials_leave_a_front() -> None:
    state = opened(policy(n_trials=6, n_slots=6, aim=FRONT))
    values = {0: (1.0, 9.0), 1: (2.0, 12.0), 2: (5.0, 5.0), 3: (9.0, 1.0), 4: (6.0, 7.0), 5: (9.0, 9.0)}
    _, actions = at(state, 10, values)
    assert pruned(actions) == [1, 4, 5]
    assert "likely to end on the front" in actions[0].reason  # type: ignore[union-attr]


def test_what_the_table_does_not_know_is_forecast_from_finished_trials_alone() -> None:
    aim = Aim(goals=(GoalAim("mmcs", maximize=True),))
    rules = policy(aim=aim, n_trials=6, n_slots=1)
    state, actions = decide(State.new(rules), Opened())
    for number in range(6):
        ask = next(action for action in actions if isinstance(action, Ask))
        state, _ = decide(state, answered(rules, ask))
        state, actions = at(state, 10, {number: (0.1 + 0.001 * (number % 3), 8.0) if number < 5 else (-9.0, 8.0)})
        if number < 5:
            assert pruned(actions) == []
            state, actions = at(state, 90, {number: (0.5 + 0.001 * (number % 2), 8.0)}, rung=1)
    assert pruned(actions) == [5]


def test_values_that_are_not_finite_prune_even_without_a_pruner() -> None:
    state = opened(policy(n_trials=2, n_slots=2, pruner="none"))
    state, actions = at(state, 10, {0: (math.nan, 8.0), 1: (9.0, 8.0)})
    assert actions == [Prune(number=0, reason="a value that it reported is not finite")]
    assert state.trials[0].reports == {}


def test_failed_trial_leaves_its_slot_to_the_next() -> None:
    rules = policy(n_slots=2, rungs_tokens=())
    state = opened(rules)
    state, actions = decide(state, BlockDone(tokens_seen={0: 10, 1: 10}, failed={1: "NaN in its loss"}))
    assert actions == [Prune(number=1, reason="NaN in its loss"), Ask(number=2, stratum="all")]
    state, actions = decide(state, answered(rules, actions[1]))  # type: ignore[arg-type]
    assert actions == [Place(number=2, slot=1)]
    state, actions = decide(state, Failed(number=2, reason="corrupt checkpoint"))
    assert actions == [Prune(number=2, reason="corrupt checkpoint")]


def test_quota_keeps_the_likeliest_of_each_architecture() -> None:
    rules = policy(n_trials=6, n_slots=6, quota=1)
    names = {n: "plain" if n < 3 else "other" for n in range(6)}
    state = opened(rules, **{f"t{n}": {"architecture": name, "kind": name} for n, name in names.items()})
    _, actions = at(state, 10, {n: (1.0 + n, 8.0) for n in range(6)})
    assert pruned(actions) == [1, 2, 4, 5]


@pytest.mark.parametrize("objectives", [2, 3])
def test_fronts_equal_the_definition(objectives: int) -> None:
    rng = random.Random(objectives)
    pool = {n: tuple(float(rng.randint(0, 6)) for _ in range(objectives)) for n in range(120)}
    left, expected = dict(pool), []
    while left:
        front = {n for n, v in left.items() if not any(w != v and all(map(float.__le__, w, v)) for w in left.values())}
        expected.append(front)
        left = {n: v for n, v in left.items() if n not in front}
    assert [set(front) for front in fronts(pool)] == expected


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
    assert not rules.decides_as(more)
    assert rules.decides_as(policy(n_trials=2, n_slots=7, strata=("a", "b"), baseline_strata=("b",)))
    state, actions = decide(state, PolicyChanged(policy=more))
    # The added stratum has had no trial yet.
    assert actions == [Ask(number=2, stratum="c"), Ask(number=3, stratum="c")]
    assert (state.stopped, state.policy) == (None, more)
    # Asks that nobody has answered are forgotten where the rules change once more.
    state, actions = decide(state, PolicyChanged(policy=rules))
    assert actions == [Stop(reason="complete")]
