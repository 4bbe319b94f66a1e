"""The size of errors is learned from finished trials of all kinds; until then forecasts have heavy tails."""

from __future__ import annotations

import math
import random

import pytest
import scipy.stats

from saesweep.forecast import Course, Entry, Moments, Noise, Report, Table, forecast_all, names_of, noises_of
from saesweep.forecast.noise import FREEDOM, cdf, quantile

ERROR_SD = 0.1
KINDS = ("standard", "gated")


def course(kind: str, number: int) -> Course:
    rng = random.Random(number)
    return Course(
        kind=kind,
        family="penalty",
        log_lr=rng.uniform(-7, -5),
        log_setting=rng.uniform(-2, 2),
        leads=(1.0, 0.5, 0.0),
        first_rung=0,
    )


def table() -> Table:
    n = len(names_of("penalty", "mse"))
    row = (*[0.0] * n, *[0.0] * (n * (n + 1) // 2), ERROR_SD)
    return Table({"any penalty": {"mse": Entry((0.0, 1e-6, 2.0), ((0.0,) * len(row), row, row), n)}})


def evidence(sd: float, n: int) -> tuple[dict[tuple[str, str, int], Moments], dict[str, Course]]:
    """Return what n trials of each kind showed whose ends missed their forecasts by errors of this deviation."""
    rng, found, courses = random.Random(0), {}, {}
    for kind in KINDS:
        for number in range(n):
            own = course(kind, number)
            courses[kind], error = own, rng.gauss(0, sd)
            for rung in (0, 1):
                report = Report(own, "mse", rung, 1.0, 30.0)
                found[report.key] = found.get(report.key, Moments()).plus(report.features, error)
    return found, courses


@pytest.mark.parametrize("sd", [0.3 * ERROR_SD, ERROR_SD, 3 * ERROR_SD])
def test_the_scale_is_found_from_trials_of_all_kinds(sd: float) -> None:
    noise = noises_of(table(), *evidence(sd, 200))["", "mse"]
    assert noise.scale == pytest.approx((sd / ERROR_SD) ** 2, rel=0.15)
    assert noise.freedom == FREEDOM + 400  # two rungs of one trial are one observation


def test_without_finished_trials_nothing_is_known_and_few_of_them_say_little() -> None:
    assert noises_of(table(), {}, {}) == {}
    few = noises_of(table(), *evidence(10 * ERROR_SD, 1))["", "mse"]
    many = noises_of(table(), *evidence(10 * ERROR_SD, 100))["", "mse"]
    assert 1.0 < few.scale < many.scale
    assert few.freedom < many.freedom


def test_a_forecast_is_as_wide_as_the_experiment_is_noisy() -> None:
    report = Report(course("standard", 1), "mse", 0, 1.0, 30.0)
    (usual,) = forecast_all(table(), [report], {})
    (noisy,) = forecast_all(table(), [report], {}, noise=Noise(scale=9.0, freedom=1e6))
    assert noisy.sd == pytest.approx(3 * usual.sd)
    # Heavy tails: three deviations off is by far less of a surprise while the size of the errors is unknown.
    assert usual.probability_above(usual.mean + 3 * usual.sd) > 10 * noisy.probability_above(noisy.mean + 3 * noisy.sd)


@pytest.mark.parametrize("freedom", [3.0, 4.0, 10.0, 100.0, math.inf])
def test_students_t_is_that_of_scipy(freedom: float) -> None:
    t = scipy.stats.norm() if math.isinf(freedom) else scipy.stats.t(freedom)
    for x in (-8.0, -2.0, -0.3, 0.0, 1.0, 4.0):
        assert cdf(x, freedom) == pytest.approx(t.cdf(x), abs=0.003)
    assert cdf(quantile(0.95, freedom), freedom) == pytest.approx(0.95)
