"""The best at each L0: in the end of a run on a pipe, in the view of a terminal, and what each remark means."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest

from saesweep.display.html import matched_html
from saesweep.display.live import LiveDisplay, board_view, make_console
from saesweep.display.matched import matched_lines
from saesweep.display.notebook import NotebookDisplay
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
    assert " ".join(lines[1].split()) == "L0 architecture ΔCE behind expl. var measured L0 trial finished seeds tokens"
    assert " ".join(lines[2].split()) == "8 batchtopk 0.3000 ± 0.0021 - 0.9000 8.16 (+2.0%) 3 2/4 3 2M best"
    assert lines[3].endswith("tied with the best")
    assert "0.0010 ± 0.0015" in lines[3]
    assert lines[4] == ""
    assert lines[5].endswith("best, still improving")
    assert lines[6].endswith("as measured, not interpolated")
    assert lines[7].endswith("too far from this L0 to compare")
    assert "batchtopk: ΔCE 0.3000 at L0 8 · 0.2500 at L0 16" in lines


@pytest.mark.parametrize("width", [80, 120, 200])
def test_the_table_fits_the_screen_and_says_what_it_leaves_out(width: int) -> None:
    entries = [replace(e, architecture=f"{e.architecture}_skip_transcoder") for e in ENTRIES]
    lines = matched_lines(entries, width=width)
    table = lines[: lines.index("", lines.index("") + 1)]
    rows = [line for line in table if line.startswith("  ")]
    assert max(map(len, rows)) <= width
    heads = " ".join(rows[0].split())
    assert heads.startswith("L0 architecture ΔCE ")
    left_out = [line for line in table if line.startswith("columns left out on this width: ")]
    if width == 200:
        assert heads.endswith("measured L0 trial finished seeds tokens")
        assert left_out == []
        assert rows[2].endswith("tied with the best")
    else:
        assert "tokens" in left_out[0]
        assert "tokens" not in heads
    if width == 80:
        assert [rows[2].split()[-1], rows[3].split()[-2:]] == ["tied", ["best,", "improving"]]
        assert rows[-1].endswith("too far off")


def test_the_end_of_a_run_on_a_screen_fits_it() -> None:
    console = make_console(io.StringIO(), {}, width=80, height=40)
    with LiveDisplay(console, ticking=False) as display:
        display(STARTED)
        display(ended(matched=ENTRIES))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    (head,) = (line for line in lines if line.startswith("  L0  architecture"))
    assert "behind" in head
    assert "tokens" not in head


def test_a_notebook_has_it_as_a_table() -> None:
    html = matched_html(ENTRIES)
    assert html.count("<tr") == 1 + len(ENTRIES)
    assert html.count("font-weight:bold") == 2
    assert '<td style="text-align:left">tied with the best</td>' in html
    assert matched_html(()) == ""
    output = Recorded()
    display = NotebookDisplay(output, ticking=False)
    display(STARTED)
    display(ended(matched=ENTRIES))
    assert html in output.html
    assert output.html.count("best at each L0") == 1


class Recorded:
    """An output of a cell that keeps what was drawn last."""

    html = ""

    def update(self, html: str) -> None:
        self.html = html


def test_what_says_nothing_is_no_column() -> None:
    heads = matched_lines([replace(e, n_complete=4, replicates=1) for e in ENTRIES])[1].split()
    assert {"finished", "seeds"}.isdisjoint(heads)
    assert "tokens" in heads


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
