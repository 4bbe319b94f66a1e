from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saesweep.specs import Duration, format_count, parse_count


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("90M", 90_000_000),
        ("2B", 2 * 10**9),
        ("1.5k", 1500),
        ("16_384", 16384),
        ("500k", 500_000),
        ("1T", 10**12),
        ("7", 7),
    ],
)
def test_counts(text: str, value: int) -> None:
    assert parse_count(text) == value
    assert parse_count(text.lower()) == value


@pytest.mark.parametrize("text", ["", "M", "90Q", "-5", "1e6", "1.5", "0.0001k", "5%", "1 000"])
def test_what_is_no_count(text: str) -> None:
    with pytest.raises(ValueError, match=r"count|whole number"):
        parse_count(text)


@given(st.integers(0, 10**14))
def test_short_form_reads_back(value: int) -> None:
    assert parse_count(format_count(value)) == value


@pytest.mark.parametrize(
    ("raw", "steps"),
    [
        (100, 100),
        ("100", 100),
        ("5%", 50),
        ("0%", 0),
        ("100%", 1000),
        ("2.5%", 25),
        ("40960tok", 10),
        ("1k", 1000),
        (1e2, 100),
    ],
)
def test_durations_in_a_run_of_1000_steps_of_4096_tokens(raw: object, steps: int) -> None:
    assert Duration.parse(raw).to_steps(1000, 4096) == steps


@pytest.mark.parametrize("raw", [-1, 0.5, "150%", "-5%", "x%", "5 steps", True, None, [1]])
def test_what_is_no_duration(raw: object) -> None:
    with pytest.raises(ValueError, match=r"duration|percentage|outside|whole|count|write 5"):
        Duration.parse(raw)


@given(
    st.one_of(
        st.integers(0, 10**9),
        st.integers(0, 10**8).map(lambda n: f"{n / 10**6}%"),
        st.integers(0, 10**9).map(lambda n: f"{n}tok"),
    )
)
def test_duration_survives_json(raw: object) -> None:
    duration = Duration.parse(raw)
    assert Duration.parse(duration.to_json()).to_steps(10**7, 64) == duration.to_steps(10**7, 64)


def test_fractions_follow_the_run() -> None:
    assert [Duration.parse("20%").to_steps(n, 64) for n in (10, 100, 1000)] == [2, 20, 200]
