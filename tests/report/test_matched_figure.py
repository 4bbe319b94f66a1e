"""The curves of a matched run: lines of one target beside each other, in the order of the run."""

import itertools
import math

import pytest

from saesweep.events import MatchedEntry
from saesweep.report.matched import matched_figure
from tests.display.test_matched import entry

NAMES = (
    "topk",
    "batchtopk",
    "jumprelu",
    "gated",
    "standard",
    "abstopk",
    "multi_k",
    "matching_pursuit",
    "topk_transcoder",
)


def entries(targets: tuple[float, ...]) -> list[MatchedEntry]:
    return [entry(target, name, 0.1) for target in targets for name in reversed(NAMES)]


@pytest.mark.parametrize(
    "targets", [(16.0,), (16.0, 32.0, 64.0), (10.0, 11.0, 12.0), (4.0, 8.0, 16.0, 32.0, 64.0, 128.0)]
)
def test_lines_of_a_target_stand_side_by_side_and_apart_from_the_next(targets: tuple[float, ...]) -> None:
    figure = matched_figure(entries(targets), NAMES)
    assert [trace.name for trace in figure.data] == list(NAMES)
    assert list(figure.layout.xaxis.tickvals) == list(targets)
    low, high = figure.layout.xaxis.range
    for place, target in enumerate(targets):
        xs = [trace.x[place] for trace in figure.data]
        assert xs == sorted(set(xs))
        assert math.prod(xs) ** (1 / len(xs)) == pytest.approx(target)
        assert low < math.log10(xs[0]) < math.log10(xs[-1]) < high
    for before, after in itertools.pairwise(range(len(targets))):
        gap = math.log(figure.data[0].x[after] / figure.data[-1].x[before])
        assert gap > 0.6 * math.log(targets[after] / targets[before])


def test_a_single_line_stands_at_its_target() -> None:
    (line,) = matched_figure([entry(16, "topk", 0.1), entry(32, "topk", 0.05)], ["topk"]).data
    assert list(line.x) == [16, 32]


def test_what_is_too_far_from_its_target_takes_no_place() -> None:
    far = entry(16, "gated", 0.3, is_comparable=False)
    (line,) = matched_figure([entry(16, "topk", 0.1), far], ["topk", "gated"]).data
    assert list(line.x) == [16]
