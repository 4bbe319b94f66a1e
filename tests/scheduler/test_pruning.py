"""Which trials a rung prunes, in examples small enough to be checked by hand."""

import math
import random

import pytest

from saesweep.scheduler import (
    Aim,
    Ask,
    BlockDone,
    Complete,
    Failed,
    Opened,
    Place,
    Prune,
    State,
    decide,
    rungs,
)
from saesweep.scheduler.aim import GoalAim, Limit
from saesweep.scheduler.dominance import fronts

from .simulator import FRONT, MSE, answered, at, opened, policy, pruned, table


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


def test_a_dead_sae_is_no_rival() -> None:
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
