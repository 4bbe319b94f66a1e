"""The best at each L0: in the end of a run on a pipe, in the view of a terminal, and what each remark means."""

from __future__ import annotations

import io

import pytest

from saesweep.display.live import LiveDisplay, board_view, make_console
from saesweep.display.matched import matched_lines
from saesweep.display.plain import PlainDisplay
from saesweep.events import MatchedEntry

from .runs import STARTED, block, ended, row


def entry(target: float, architecture: str, delta_ce: float, **changes: object) -> MatchedEntry:
    fields: dict[str, object] = {
        "hook": "model.layers.2",
        "trial": 3,
        "goal": "delta_ce",
        "metrics": {"delta_ce": delta_ce, "explained_variance": 0.9},
        "is_interpolated": True,
        "is_comparable": True,
        "l0": 1.02 * target,
        "stderr": 0.0021,
        "replicates": 3,
        "tokens": 2_000_000,
        "n_trials": 4,
        "n_complete": 2,
    }
    return MatchedEntry(target_l0=target, architecture=architecture, **{**fields, **changes})  # type: ignore[arg-type]


ENTRIES = (
    entry(8, "batchtopk", 0.3, is_winner=True),
    entry(8, "gated", 0.301, is_tied=True, behind=0.001, behind_stderr=0.0015),
    entry(16, "gated", 0.2, is_winner=True, still_improving=True),
    entry(16, "batchtopk", 0.25, is_interpolated=False, behind=0.05),
    entry(16, "standard", 0.1, is_interpolated=False, is_comparable=False, l0=80.0),
)


def test_the_table_says_who_is_best_by_how_much_and_what_to_doubt() -> None:
    lines = matched_lines(ENTRIES)
    assert lines[0] == "best at each L0 (ΔCE at exactly that L0, ± standard error):"
    assert " ".join(lines[1].split()) == "L0 architecture ΔCE behind expl. var measured L0 trial n seeds tokens"
    assert " ".join(lines[2].split()) == "8 batchtopk 0.3000 ± 0.0021 - 0.9000 8.16 (+2.0%) 3 2/4 3 2M best"
    assert lines[3].endswith("tied with the best")
    assert "0.0010 ± 0.0015" in lines[3]
    assert lines[4] == ""
    assert lines[5].endswith("best, still improving")
    assert lines[6].endswith("as measured, not interpolated")
    assert lines[7].endswith("too far from this L0 to compare")
    assert "batchtopk: ΔCE 0.3000 at L0 8 · 0.2500 at L0 16" in lines


def test_it_closes_a_run() -> None:
    stream = io.StringIO()
    display = PlainDisplay(stream)
    display(STARTED)
    display(ended(matched=ENTRIES))
    text = stream.getvalue()
    assert text.index("best at each L0") < text.index("best: trial 3")
    display = PlainDisplay(stream := io.StringIO())
    display(ended())
    assert "at each L0" not in stream.getvalue()


def test_the_live_view_names_the_best_so_far() -> None:
    console = make_console(io.StringIO(), {}, width=120, height=40)
    with LiveDisplay(console) as display:
        display(STARTED)
        display(block(matched=ENTRIES))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "best at L0 8: batchtopk, ΔCE 0.3000 (2 architectures finished)" in text
    assert "best at L0 16: gated, ΔCE 0.2000 (3 architectures finished)" in text


@pytest.mark.parametrize("height", [20, 30])
def test_its_lines_take_the_place_of_rows(height: int) -> None:
    rows = [row(i) for i in range(60)]
    console = make_console(io.StringIO(), {}, width=120, height=height)
    console.print(board_view(console, rows, metrics=STARTED.metrics, n_footer=5))
    assert len(console.file.getvalue().splitlines()) < height - 5  # type: ignore[attr-defined]
