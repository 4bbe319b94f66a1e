"""Numbers and times as short text."""

from __future__ import annotations

import math

import pytest

from saesweep.display.text import (
    ASCII_TWINS,
    duration,
    encodable,
    metric_value,
    percent,
    short_count,
    short_rate,
    wraps_softly,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (950, "950"),
        (999, "999"),
        (1000, "1k"),
        (12_288, "12.3k"),
        (430_000, "430k"),
        (999_400, "999k"),
        (999_600, "1M"),
        (1_250_000, "1.25M"),
        (200_000_000, "200M"),
        (2 * 10**9, "2B"),
        (3 * 10**15, "3000T"),
    ],
)
def test_short_count(value, text):
    assert short_count(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0s"), (59.4, "59s"), (59.6, "1m 00s"), (192, "3m 12s"), (18_120, "5h 02m"), (183_600, "2d 03h")],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_shows_as_a_dash(value):
    assert short_rate(value) == duration(value) == metric_value("l0", value) == "-"


def test_percent_keeps_100_for_what_is_done():
    assert percent(999, 1000) == "99%"
    assert percent(1000, 1000) == "100%"
    assert percent(1, 0) == "-"


def test_encodable_keeps_the_width_in_every_encoding():
    text = "".join(ASCII_TWINS) + "é"
    assert encodable(text, "utf-8") == encodable(text, None) == text
    for encoding in ("ascii", "cp1252", "latin-1"):
        plain = encodable(text, encoding)
        plain.encode(encoding)
        assert len(plain) == len(text)


@pytest.mark.parametrize(
    ("line", "is_soft"),
    [
        ("trials: batchtopk 3 (2 complete, 1 pruned) · topk 3 (2 complete, 1 pruned)", False),
        ("best: trial 2 (topk) -> runs/x/best", False),
        ("the state is saved; resume with: saesweep run x.yaml --set a=1", True),
        (f"best: trial 2 (topk) -> /{'long/' * 10}best", True),
    ],
)
def test_what_is_copied_is_not_broken_into_lines(line, is_soft):
    assert wraps_softly(line, 40) is is_soft
