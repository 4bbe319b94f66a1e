"""The best at each L0: interpolation by hand, ties, what is too far away, and what is still improving."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from saesweep.driver.matched import best_at_middle, matched_entries, matched_notes, still_improving
from saesweep.driver.standings import rank
from saesweep.events import Row
from saesweep.specs import ObjectiveSpec

OBJECTIVE = ObjectiveSpec.model_validate({"minimize": "delta_ce", "matched": {"l0": [8, 16, 32]}})
LARGEST = ObjectiveSpec.model_validate({"maximize": "explained_variance", "matched": {"l0": [8, 16, 32]}})


def row(number: int, architecture: str, target: float, l0: float, delta_ce: float, **fields: Any) -> Row:
    given: dict[str, Any] = {
        "sparsity": "",
        "params": {},
        "lr": 1e-3,
        "hook": "h",
        "status": "complete",
        "tokens": 10,
        "total_tokens": 10,
        "metrics": {"l0": l0, "delta_ce": delta_ce, "explained_variance": 1 - delta_ce},
    }
    return Row(number=number, architecture=architecture, target_l0=target, **{**given, **fields})


def curve(l0: float) -> float:
    """A metric that is a parabola in log2 L0, so that interpolation must find it exactly."""
    x = math.log2(l0)
    return 0.5 - 0.1 * x + 0.005 * x * x


def test_misses_decide_nothing() -> None:
    exact = [row(i, "topk", t, t, curve(t)) for i, t in enumerate((8, 16, 32))]
    # The same SAE in all but its L0: every trial ended 5% above its target, where the metric is better.
    above = [row(3 + i, "gated", t, 1.05 * t, curve(1.05 * t)) for i, t in enumerate((8, 16, 32))]
    entries = matched_entries([*exact, *above], OBJECTIVE)
    assert len(entries) == 6
    for entry in entries:
        assert entry.is_interpolated
        assert entry.metrics["delta_ce"] == pytest.approx(curve(entry.target_l0), rel=1e-12)
        assert entry.metrics["explained_variance"] == pytest.approx(1 - curve(entry.target_l0), rel=1e-12)


def test_interpolation_by_hand() -> None:
    # log2 L0 is 3, 4, 5.5 and the value at 4.5 is wanted: Lagrange weights are -0.2, 2/3 + 1/3 ... worked out below.
    rows = [row(0, "gated", 8, 8, 0.4), row(1, "gated", 16, 16, 0.2), row(2, "gated", 2**4.5, 2**5.5, 0.1)]
    objective = ObjectiveSpec.model_validate({"minimize": "delta_ce", "matched": {"l0": [8, 16, 2**4.5]}})
    last = matched_entries(rows, objective)[-1]
    w = [(0.5 * -1) / (-1 * -2.5), (1.5 * -1) / (1 * -1.5), (1.5 * 0.5) / (2.5 * 1.5)]
    assert w == pytest.approx([-0.2, 1.0, 0.2])
    # The trial nearest in log L0 is 0.35 away, too far for a curve: the value stays as measured, and cannot win.
    assert not last.is_interpolated
    assert not last.is_comparable
    rows[2] = row(2, "gated", 2**4.5, 2**4.75, 0.1)
    last = matched_entries(rows, objective)[-1]
    w = [(0.5 * -0.25) / (-1 * -1.75), (1.5 * -0.25) / (1 * -0.75), (1.5 * 0.5) / (1.75 * 0.75)]
    assert last.is_interpolated
    assert last.metrics["delta_ce"] == pytest.approx(w[0] * 0.4 + w[1] * 0.2 + w[2] * 0.1)


def test_of_several_trials_the_best_at_the_target_counts_not_the_densest() -> None:
    rows = [row(0, "gated", 8, 8, curve(8)), row(1, "gated", 32, 32, curve(32)), row(2, "gated", 16, 16, curve(16))]
    worse_but_denser = row(3, "gated", 16, 17.5, curve(17.5) + 0.001)
    assert worse_but_denser.metrics["delta_ce"] < rows[2].metrics["delta_ce"]
    (at_16,) = [e for e in matched_entries([*rows, worse_but_denser], OBJECTIVE) if e.target_l0 == 16]
    assert at_16.trial == 2
    assert (at_16.n_trials, at_16.n_complete) == (2, 2)


def test_a_trial_far_from_its_target_is_never_picked_over_one_near_it() -> None:
    # At 8 the far trial has the better raw value; with one, two or three targets it must not stand for the target.
    far, near = row(0, "gated", 8, 11.0, curve(11.0) - 0.01), row(1, "gated", 8, 8.02, curve(8.02))
    others = [row(2, "gated", 16, 16, curve(16)), row(3, "gated", 32, 32, curve(32))]
    assert far.metrics["delta_ce"] < near.metrics["delta_ce"]
    for more in ([], others[:1], others):
        (at_8,) = [e for e in matched_entries([far, near, *more], OBJECTIVE) if e.target_l0 == 8]
        assert at_8.trial == 1, more
        assert at_8.is_comparable


def test_where_every_trial_missed_the_nearest_stands_for_the_target_and_is_not_compared() -> None:
    rows = [row(0, "gated", 8, 11.0, 0.2), row(1, "gated", 8, 9.5, 0.25), row(2, "topk", 8, 8, 0.3)]
    at_8 = {e.architecture: e for e in matched_entries(rows, OBJECTIVE)}
    assert (at_8["gated"].trial, at_8["gated"].is_comparable) == (1, False)
    assert at_8["topk"].is_winner


@pytest.mark.parametrize("seed", range(20))
def test_the_pick_is_the_best_at_the_target_of_those_within_a_tenth_of_it(seed: int) -> None:
    rng = random.Random(seed)
    rows, at_target = [], {}
    for target in (8, 16, 32):
        for _ in range(6):
            number, l0, worse = (
                len(rows),
                target * rng.choice((rng.uniform(0.92, 1.08), rng.uniform(0.6, 1.5))),
                rng.random(),
            )
            # Each trial is a curve of its own: what it would be at its target is known.
            rows.append(row(number, "gated", target, l0, curve(l0) + 0.05 * worse))
            if abs(l0 / target - 1) <= 0.1:
                at_target.setdefault(target, {})[number] = worse
    for entry in matched_entries(rows, OBJECTIVE):
        known = at_target.get(entry.target_l0)
        if known:
            # The slope is estimated from other trials: a lead smaller than its error may be mistaken.
            assert known[entry.trial] <= min(known.values()) + 0.1


def test_ties_are_bracketed_by_seeds_and_contexts_together() -> None:
    spread = {"delta_ce": 0.003}
    rows = [
        *(row(i, "topk", t, t, curve(t), replicates=3, spread=spread) for i, t in enumerate((8, 16, 32))),
        *(row(3 + i, "gated", t, t, curve(t) + 0.004, replicates=3, spread=spread) for i, t in enumerate((8, 16, 32))),
        *(
            row(6 + i, "standard", t, t, curve(t) + 0.02, replicates=3, spread=spread)
            for i, t in enumerate((8, 16, 32))
        ),
    ]
    entries = matched_entries(rows, OBJECTIVE)
    first, second, third = entries[:3]
    assert [e.architecture for e in entries[:3]] == ["topk", "gated", "standard"]
    assert (first.is_winner, first.behind) == (True, None)
    assert second.is_tied
    assert second.behind == pytest.approx(0.004)
    assert second.behind_stderr == pytest.approx(0.003 * math.sqrt(2 / 3))
    assert not third.is_tied
    asked = []

    def stderr_of(weights: Any) -> float:
        asked.append(dict(weights))
        return 0.01

    second = matched_entries(rows, OBJECTIVE, stderr_of)[1]
    assert second.behind_stderr == pytest.approx(math.hypot(0.01, 0.003 * math.sqrt(2 / 3)))
    difference = next(w for w in asked if sum(w.values()) == pytest.approx(0))
    assert {n: v for n, v in difference.items() if abs(v) > 1e-12} == pytest.approx({3: 1.0, 0: -1.0})


def test_with_two_targets_values_stand_as_measured_with_their_miss() -> None:
    objective = ObjectiveSpec.model_validate({"maximize": "explained_variance", "matched": {"l0": [8, 16]}})
    rows = [row(0, "topk", 8, 8, 0.4), row(1, "topk", 16, 16, 0.2), row(2, "gated", 8, 8.4, 0.35)]
    entries = matched_entries(rows, objective)
    assert [(e.target_l0, e.architecture, e.is_winner) for e in entries] == [
        (8, "gated", True),
        (8, "topk", False),
        (16, "topk", True),
    ]
    assert not any(e.is_interpolated for e in entries)
    assert any("gated" in note and "8 (+5.0%)" in note for note in matched_notes(entries))


def test_what_ended_far_away_cannot_win() -> None:
    rows = [row(i, "topk", t, t, curve(t)) for i, t in enumerate((8, 16, 32))]
    rows += [row(3, "gated", 8, 60, 0.01), row(4, "gated", 16, 80, 0.009), row(5, "gated", 32, 100, 0.001)]
    entries = matched_entries(rows, OBJECTIVE)
    assert {e.architecture for e in entries if e.is_winner} == {"topk"}
    assert any("too far from the target" in note and "gated at L0 8 (60.0)" in note for note in matched_notes(entries))
    alone = matched_entries(rows[3:], OBJECTIVE)
    assert not any(e.is_winner for e in alone)
    number, notes = best_at_middle(alone, OBJECTIVE)
    assert number == 4
    assert "nothing can be compared" in notes[0]


def test_unfinished_and_infeasible_trials_do_not_count() -> None:
    objective = ObjectiveSpec.model_validate(
        {"minimize": "delta_ce", "matched": {"l0": [8, 16, 32]}, "subject_to": {"explained_variance": {"min": 0.5}}}
    )
    rows = [
        row(0, "topk", 8, 8, 0.6),
        row(1, "topk", 16, 16, 0.2, status="training"),
        row(2, "topk", 32, 32, 0.1, status="pruned"),
    ]
    assert matched_entries(rows, objective) == ()


def test_ranks_are_those_within_a_target_and_best_is_that_of_the_middle_one() -> None:
    rows = [row(i, "topk", t, t, curve(t)) for i, t in enumerate((32, 16, 8))]
    rows += [row(3 + i, "gated", t, t, curve(t) - 0.01) for i, t in enumerate((32, 16, 8))]
    ordered = rank(rows, OBJECTIVE)
    assert [(r.target_l0, r.number, r.rank) for r in ordered] == [
        (8, 5, 1),
        (8, 2, 2),
        (16, 4, 1),
        (16, 1, 2),
        (32, 3, 1),
        (32, 0, 2),
    ]
    number, notes = best_at_middle(matched_entries(rows, OBJECTIVE), OBJECTIVE)
    assert number == 4
    assert "the winner at L0 16, trial 4 (gated)" in notes[0]


def test_still_improving_is_more_than_three_percent_before_the_decay() -> None:
    assert still_improving(row(0, "topk", 8, 8, 0.1), OBJECTIVE) is None
    assert still_improving(row(0, "topk", 8, 8, 0.1, trend=((10, 0.2), (20, 0.193))), OBJECTIVE) is True
    assert still_improving(row(0, "topk", 8, 8, 0.1, trend=((10, 0.2), (20, 0.195))), OBJECTIVE) is False
    # Of explained variance, it is the gap to 1 that closes.
    assert still_improving(row(0, "topk", 8, 8, 0.1, trend=((10, 0.9), (20, 0.904))), LARGEST) is True
    assert still_improving(row(0, "topk", 8, 8, 0.1, trend=((10, 0.9), (20, 0.902))), LARGEST) is False
