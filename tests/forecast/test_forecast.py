"""Forecasts against a regression done by hand, and what is known without one."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from saesweep.forecast import (
    MIN_EVIDENCE,
    Ahead,
    Course,
    Entry,
    Evidence,
    Moments,
    Report,
    Table,
    centring,
    column_of,
    features_of,
    forecast_all,
    from_scale,
    names_of,
    probability_better,
    shipped_table,
    to_scale,
)

ERROR_SD = 0.1


def course(number: int = 0, **changes: Any) -> Course:
    rng = random.Random(number)
    fields = {
        "kind": "standard",
        "family": "penalty",
        "log_lr": rng.uniform(-7, -5),
        "log_setting": rng.uniform(-2, 2),
        "leads": (1.0, 0.0),
        "first_rung": 0,
    }
    return Course(**{**fields, **changes})


def report(number: int, metric: str = "mse", **changes: Any) -> Report:
    rng = random.Random(1000 + number)
    return Report(course(number, **changes), metric, 0, math.exp(rng.uniform(-1, 1)), math.exp(rng.uniform(2, 5)))


def table(sd: float) -> Table:
    """A prior of independent weights, the same at every lead beyond 0."""
    entries = {}
    for metric in ("mse", "l0"):
        n = len(names_of("penalty", metric))
        triangle = [sd**2 if i == j else 0.0 for i in range(n) for j in range(i + 1)]
        row = (*[0.1] * n, *triangle, ERROR_SD)
        entries[metric] = Entry((0.0, 1e-6, 2.0), ((0.0,) * len(row), row, row), n)
    return Table({"any penalty": entries})


def evidence_of(reports: list[Report], changes: list[float]) -> Evidence:
    moments = Moments()
    for each, change in zip(reports, changes, strict=True):
        moments = moments.plus(each.features, change)
    return {reports[0].key: moments}


@pytest.mark.parametrize("value", [0.01, 0.5, 0.97])
def test_values_come_back_from_their_scale(value: float) -> None:
    for metric in ("explained_variance", "mse", "l0", "mmcs"):
        assert from_scale(metric, to_scale(metric, value)) == pytest.approx(value)


@pytest.mark.parametrize("family", ["k", "penalty", "steered"])
def test_centred_features_are_differences_and_their_products(family: str) -> None:
    names = names_of(family, "mse")
    of = [np.array(features_of(course(n, family=family, target_l0=16.0 + n), "mse", 0.3 * n, 2.0)) for n in range(5)]
    centre = np.mean(of, axis=0)
    place = {name: i for i, name in enumerate(names)}
    for features in of:
        found = centring(tuple(centre), names) @ features
        assert found[0] == 1.0
        for name, i in place.items():
            parts = [features[place[part]] - centre[place[part]] for part in name.split() if part != "1"]
            assert found[i] == pytest.approx(math.prod(parts))


def test_the_posterior_is_that_of_bayesian_regression_on_all_finished_trials() -> None:
    finished = [report(n) for n in range(1, 9)]
    changes = [random.Random(n).uniform(-1, 0) for n in range(1, 9)]
    new = [report(20), report(21)]
    found = forecast_all(table(0.7), new, evidence_of(finished, changes))
    # By hand: the same centre, the same prior, ordinary matrices.
    names = names_of("penalty", "mse")
    raw = np.array([r.features for r in [*new, *finished]])
    to_centre = centring(tuple(raw.mean(axis=0)), names)
    x, mine = raw[2:] @ to_centre.T, raw[:2] @ to_centre.T
    prior = np.eye(len(names)) / 0.7**2
    covariance = np.linalg.inv(prior + x.T @ x / ERROR_SD**2)
    weights = covariance @ (prior @ np.full(len(names), 0.1) + x.T @ np.array(changes) / ERROR_SD**2)
    for i, each in enumerate(found):
        assert each.mean == pytest.approx(new[i].scaled + mine[i] @ weights, abs=1e-6)
        assert each.sd == pytest.approx(math.sqrt(ERROR_SD**2 + mine[i] @ covariance @ mine[i]), rel=1e-5)


def test_trials_further_ahead_count_the_less_the_less_sure_their_own_end_is() -> None:
    other = report(1)
    new = replace(other)  # alike in everything, so that only the mean change is at stake
    end = np.array([other.scaled - 2.0])
    means = [
        forecast_all(table(0.7), [new], {}, Ahead(column_of([other]), end, [sd]))[0].mean for sd in (0.0, 1.0, 3e4)
    ]
    alone = forecast_all(table(0.7), [new], {})[0].mean
    assert means[0] < means[1] < means[2]
    assert means[0] == pytest.approx(other.scaled - 2.0, abs=0.1)
    assert means[2] == pytest.approx(alone, abs=1e-3)


def test_what_two_alike_trials_share_decides_nothing_between_them() -> None:
    """The change of the source is uncertain by far more than the lead, and cancels."""
    one, two = report(3), replace(report(3), value=report(3).value * 1.3)
    a, b = forecast_all(table(0.0), [one, two], {})
    a, b = (
        replace(f, covariance=np.diag([9.0, 0, 0, 0, 0, 0, 0]), own_variance=ERROR_SD**2, freedom=math.inf)
        for f in (a, b)
    )
    assert a.sd > 2.9
    assert probability_better(a, b, 1) > 0.95
    assert probability_better(b, a, 1) == pytest.approx(1 - probability_better(a, b, 1))
    assert probability_better(a, replace(b, key=("other", "mse", 0)), 1) < 0.6


@pytest.mark.parametrize(
    ("kind", "value", "sd"), [("topk", 16.0, 0.0), ("topk", 12.0, 0.02), ("batchtopk", 15.9, 0.02)]
)
def test_the_l0_of_a_k_is_known(kind: str, value: float, sd: float) -> None:
    own = course(kind=kind, family="k", l0=16.0)
    (found,) = forecast_all(shipped_table(), [Report(own, "l0", 0, value, value)], {})
    assert found.value == pytest.approx(min(value, 16.0))
    assert found.sd == pytest.approx(sd)


def test_an_unknown_metric_has_no_forecast_before_there_is_evidence() -> None:
    new = report(20, "mmcs")
    finished = [report(n, "mmcs") for n in range(MIN_EVIDENCE)]
    (before,) = forecast_all(shipped_table(), [new], evidence_of(finished[:-1], [0.2] * (MIN_EVIDENCE - 1)))
    assert not before.is_known
    (after,) = forecast_all(shipped_table(), [new], evidence_of(finished, [0.1, 0.2, 0.3, 0.2]))
    assert after.mean == pytest.approx(new.scaled + 0.2)
    assert 0.1 < after.sd < 0.5  # wider than the sample's own 0.08: four trials say little of it


def test_intervals_hold_what_they_say_and_turn_with_the_scale() -> None:
    (found,) = forecast_all(table(0.0), [report(5)], {})
    low, high = found.interval(0.9)
    assert low < found.value < high
    below = found.probability_below(to_scale("mse", low))
    assert below == pytest.approx(0.05, abs=1e-6)
    assert found.probability_above(to_scale("mse", low)) == pytest.approx(0.95, abs=1e-6)
    share = replace(found, metric="explained_variance")
    assert share.interval()[0] < share.value < share.interval()[1]
