from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saesweep.driver.ranking import by_knee_distance, costs, knee, violations, winner
from saesweep.driver.standings import Standings, rank
from saesweep.events import Row
from saesweep.specs import ObjectiveSpec

PARETO = ObjectiveSpec.model_validate({"pareto": [{"minimize": "l0"}, {"minimize": "delta_ce"}]})
LIMITED = ObjectiveSpec.model_validate({"maximize": "explained_variance", "subject_to": {"l0": {"max": 20.0}}})

MATCHED = ObjectiveSpec.model_validate({"minimize": "delta_ce", "matched": {"l0": [1, 8, 30]}})


def row(number: int, status: str = "complete", **metrics: float) -> Row:
    fields: dict[str, Any] = {"architecture": "topk", "sparsity": "", "params": {}, "lr": 1e-3, "hook": "h"}
    return Row(number=number, status=status, tokens=10, total_tokens=10, metrics=metrics, **fields)  # type: ignore[arg-type]


def test_costs_are_all_to_be_minimised() -> None:
    assert costs({"explained_variance": 0.9}, LIMITED) == (-0.9,)
    assert violations({"l0": 25.0}, LIMITED) == {"l0_max": pytest.approx(0.25)}
    assert violations({"l0": 20.0}, LIMITED)["l0_max"] == 0.0  # bounds are included


def test_a_feasible_trial_ranks_before_a_better_infeasible_one() -> None:
    rows = rank([row(0, explained_variance=0.99, l0=40), row(1, explained_variance=0.8, l0=10)], LIMITED)
    assert [(r.number, r.rank, r.feasible) for r in rows] == [(1, 1, True), (0, None, False)]
    assert winner(rows, LIMITED) == (1, [])


def test_without_a_feasible_trial_the_least_infeasible_is_named() -> None:
    rows = rank([row(0, explained_variance=0.99, l0=40), row(1, explained_variance=0.8, l0=22)], LIMITED)
    best, notes = winner(rows, LIMITED)
    assert best == 1
    assert "no feasible trial" in notes[0]
    assert "l0_max by 10%" in notes[0]


def test_pareto_layers_and_front() -> None:
    rows = rank(
        [row(0, l0=10, delta_ce=1.0), row(1, l0=20, delta_ce=0.5), row(2, l0=20, delta_ce=0.9), row(3, "pruned", l0=1)],
        PARETO,
    )
    assert [(r.number, r.rank, r.on_front) for r in rows] == [
        (0, 1, True),
        (1, 1, True),
        (2, 2, False),
        (3, None, False),
    ]


def test_the_knee_is_between_the_extremes() -> None:
    points = {0: (4.0, 3.0), 1: (16.0, 0.5), 2: (256.0, 0.4)}
    assert knee(points, PARETO) == 1
    rows = rank([row(n, l0=a, delta_ce=b) for n, (a, b) in points.items()], PARETO)
    best, notes = winner(rows, PARETO)
    assert best == 1
    assert "knee of the Pareto front of 3" in notes[0]


def test_one_delta_ce_below_zero_takes_the_logarithm_from_its_whole_column() -> None:
    # By chance an SAE can lower the loss. Logarithms of the others beside its raw value would stretch the column.
    points = {0: (4.0, 3.0), 1: (16.0, 0.5), 2: (100.0, 1e-6), 3: (256.0, -0.01)}
    raw = ObjectiveSpec.model_validate({"pareto": [{"minimize": "l0"}, {"minimize": "ce_loss_with_sae"}]})
    assert by_knee_distance(points, PARETO) == by_knee_distance(points, raw)
    assert knee(points, PARETO) == 1


def test_a_dead_sae_is_on_no_front_and_wins_nothing() -> None:
    rows = rank([row(0, l0=0.0, delta_ce=5.0), row(1, l0=10, delta_ce=1.0)], PARETO)
    assert [(r.number, r.on_front, r.feasible) for r in rows] == [(1, True, True), (0, False, False)]
    smallest = ObjectiveSpec.model_validate({"minimize": "l0"})
    best, notes = winner(rank([row(0, l0=0.0)], smallest), smallest)
    assert best == 0
    assert "misses dead" not in notes[0]
    assert "no latent ever fires" in notes[0]


def test_where_nothing_is_feasible_the_note_says_what_would_help() -> None:
    rows = rank([row(0, explained_variance=0.99, l0=40)], LIMITED)
    assert "a lower sae.k" in winner(rows, LIMITED)[1][0]
    dense = ObjectiveSpec.model_validate({"minimize": "l0", "subject_to": {"explained_variance": {"min": 0.9}}})
    assert "relax" in winner(rank([row(0, explained_variance=0.5, l0=4)], dense), dense)[1][0]


def test_nothing_finished() -> None:
    rows = [row(0, "pruned"), row(1, "failed")]
    why = "no trial finished: every one was pruned or failed; nothing is exported"
    assert winner(rank(rows, PARETO), PARETO) == (None, [why])
    stopped_by_a_budget = rank([*rows, row(2, "waiting")], PARETO)
    assert winner(stopped_by_a_budget, PARETO) == (None, ["no trial finished; nothing is exported"])


def plain_layers(points: dict[int, tuple[float, ...]]) -> dict[int, int]:
    """Return each point's layer by definition: peel off what nothing dominates, again and again."""

    def beats(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
        return a != b and all(x <= y for x, y in zip(a, b, strict=True))

    layers: dict[int, int] = {}
    depth = 1
    while left := {n: p for n, p in points.items() if n not in layers}:
        layers |= {n: depth for n, p in left.items() if not any(beats(other, p) for other in left.values())}
        depth += 1
    return layers


@pytest.mark.parametrize("goals", [1, 2, 3])
@given(data=st.data())
def test_ranks_are_those_of_layers_by_definition(goals: int, data: st.DataObject) -> None:
    # Few distinct values give ties and copies.
    value = st.one_of(st.integers(0, 4).map(float), st.floats(-5, 5), st.just(float("inf")))
    points = dict(enumerate(data.draw(st.lists(st.tuples(*[value] * goals), max_size=25))))
    names = ("delta_ce", "mse", "kl_div")[:goals]
    stated = [{"minimize": name} for name in names]
    objective = ObjectiveSpec.model_validate(stated[0] if goals == 1 else {"pareto": stated})
    rows = [row(n, l0=8, **dict(zip(names, point, strict=True))) for n, point in points.items()]
    layers = plain_layers(points)
    # Of one goal the rank counts the trials before it.
    expected = {n: 1 + sum(o < d for o in layers.values()) for n, d in layers.items()} if goals == 1 else layers
    found = rank(rows, objective)
    assert {r.number: r.rank for r in found} == expected
    in_order = sorted((expected[n], point, n) for n, point in points.items())
    assert [(r.rank, r.number) for r in found] == [(depth, n) for depth, _, n in in_order]


@pytest.mark.parametrize("objective", [PARETO, LIMITED, MATCHED])
@given(data=st.data())
def test_trials_that_end_one_by_one_are_ranked_as_all_at_once(objective: ObjectiveSpec, data: st.DataObject) -> None:
    value = st.one_of(st.integers(0, 4).map(float), st.floats(-5, 5), st.just(float("nan")))
    points = data.draw(st.lists(st.tuples(st.sampled_from([1.0, 8.0, 30.0]), value), max_size=25))
    state = st.sampled_from(["complete"] * 4 + ["pruned", "failed"])
    rows = [
        replace(
            row(n, data.draw(state), l0=l0, delta_ce=value, explained_variance=value),
            target_l0=l0 if objective is MATCHED else None,
            replicates=2,
            spread={} if n % 2 else {"explained_variance": 0.5},
        )
        for n, (l0, value) in enumerate(points)
    ]
    live = [row(100, "waiting"), row(99, "training", l0=3.0)]
    standings = Standings(objective, rows[: len(rows) // 2])
    for one in rows[len(rows) // 2 :]:
        standings.add(one)
    found = standings.rows(live)
    assert repr(found) == repr(rank([*rows, *live], objective))  # NaN is not equal to itself
    shown = [r for r in standings.rows(live, 4) if r not in live]
    assert repr(shown) == repr([r for r in found if r not in live][:4])


@given(st.lists(st.tuples(st.floats(1, 100), st.floats(-5, 5)), min_size=1, max_size=10))
def test_ranking_keeps_every_row_and_does_not_depend_on_the_order_given(points: list[tuple[float, float]]) -> None:
    rows = [row(n, l0=a, delta_ce=b) for n, (a, b) in enumerate(points)]
    ordered = rank(rows, PARETO)
    assert sorted(r.number for r in ordered) == list(range(len(rows)))
    assert [r.number for r in rank(rows[::-1], PARETO)] == [r.number for r in ordered]
