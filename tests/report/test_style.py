"""How architectures look: the same everywhere, and each unlike the others in points, lines and bars."""

from collections import Counter

from saesweep.report.html import asset
from saesweep.report.style import bar_of, marker, style_of
from saesweep.specs.architectures import architectures, spec_class

SAME_BARS = {"topk", "multi_k"}
"""A multi_k SAE is a topk SAE once it is exported."""


def test_points_and_bars_of_built_in_architectures_differ() -> None:
    names = [name for name in architectures() if spec_class(name).__module__.startswith("saesweep.")]
    assert {"topk", "topk_transcoder", "topk_skip_transcoder", "topk_crosscoder"} <= set(names)
    points = Counter((style_of(name).colour, style_of(name).symbol) for name in names)
    bars = Counter((style_of(name).colour, style_of(name).pattern) for name in names if name not in SAME_BARS)
    assert max(points.values()) == max(bars.values()) == 1


def test_a_transcoder_has_the_colour_of_its_sae_and_a_pattern_that_bars_and_tables_show() -> None:
    for name, pattern in (
        ("topk", ""),
        ("topk_transcoder", "/"),
        ("topk_skip_transcoder", "x"),
        ("topk_crosscoder", "."),
    ):
        assert bar_of(name)["color"] == style_of("topk").colour
        assert bar_of(name).get("pattern", {}).get("shape", "") == pattern
        assert (f'.mark[data-pattern="{pattern}"]' in asset("page.css")) == bool(pattern)


def test_an_open_marker_has_an_outline_that_is_seen() -> None:
    assert marker("topk_transcoder")["line"]["width"] > marker("topk")["line"]["width"]
