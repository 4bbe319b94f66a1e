"""The report of a small synthetic run: its parts, its size, its isolation from any network, and a real browser."""

import html
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import saesweep
from saesweep.cli import main
from saesweep.report import write as write_module
from saesweep.report import write_report
from saesweep.report.html import json_script
from saesweep.report.page import SECTIONS
from saesweep.report.style import style_of
from tests.documentation import ROOT
from tests.report.audit import faults_of
from tests.report.browsing import Tab, needs_browser, open_tab
from tests.report.runs import MATCHED, TREE, changed, one_finished, unfinished

PLOTS = ["front", "rungs", "curves", "parallel", "importance", "slots", "dead_latents", "density", "rate"]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "run"
    saesweep.run(TREE, run_dir=folder)
    return folder


@pytest.fixture(scope="module")
def page(run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(run_dir, to=tmp_path_factory.mktemp("page"), pngs=False).page


def test_every_part_is_there(page: Path, run_dir: Path) -> None:
    text = page.read_text()
    for section in SECTIONS.keys() - {"matched"}:
        assert f'<section id="{section}">' in text
    assert re.findall(r'class="plot" data-figure="figure-(\w+)"', text) == PLOTS
    best = json.loads((run_dir / "leaderboard.json").read_text())["best"]
    assert f"Trial {best}: " in text
    assert "By how much" in text
    assert "synthetic activations have no text" in text


def test_the_page_is_small_and_asks_nothing_of_a_network(page: Path) -> None:
    text = page.read_text()
    assert page.stat().st_size < 5_000_000
    assert "default-src 'none'" in text
    assert not re.search(r"<(?:link|img|iframe|script)[^>]+(?:src|href)=", text)
    assert not re.search(r"@import|url\(", text)


def test_what_a_run_says_is_escaped(run_dir: Path, tmp_path: Path) -> None:
    def rename(board: dict[str, Any]) -> None:
        board["notes"] = ["a <b>bold</b> & 'quoted' note"]
        for row in board["rows"]:
            row |= {"sparsity": "<script>alert(1)</script>"}

    text = write_report(
        changed(run_dir, tmp_path / "run", rename), to=tmp_path, pngs=False, features=False
    ).page.read_text()
    assert "<script>alert" not in text
    assert "<b>bold" not in text
    assert "A &lt;b&gt;bold&lt;/b&gt; &amp; &#39;quoted&#39; note" in text


def test_a_name_cannot_break_out_of_its_data() -> None:
    text = str(json_script("x", {"a": "</script><script>alert(1)</script><!--"}))
    assert text.count("<") == 2
    assert json.loads(text.split(">", 1)[1].rsplit("<", 1)[0])["a"].startswith("</script>")


def test_references_are_stars_rivals_and_rows(run_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(run_dir, tmp_path / "run")
    best = str(run_dir / "best")
    tree = {**TREE, "evaluation": {**TREE["evaluation"], "references": [best]}}
    assert saesweep.run(tree, run_dir=tmp_path / "run").status == "complete"
    text = write_report(tmp_path / "run", pngs=False, features=False).page.read_text()
    assert text.count('"name":"references","text":["r0"]') == 1
    assert f"r0 is {best}" in text
    rival, row = re.findall(r"<tr[^>]*>(?:<td[^>]*>[^<]*</td>)*?<td[^>]*>r0</td>.*?</tr>", text)
    assert ("within noise" in rival, "reference" in row) == (True, True)  # it is the winner itself


def test_an_unfinished_run_has_a_report(run_dir: Path, tmp_path: Path) -> None:
    copy = changed(run_dir, tmp_path / "run", unfinished, with_best=False)
    report = write_report(copy, pngs=False)
    text = report.page.read_text()
    assert "still going" in text
    assert "run the same command again" in text
    assert "Pruning saved" not in text  # what is not done yet was not saved
    board = text.split('<section id="leaderboard">')[1]
    assert "<th>trial</th>" in board
    assert "<th>rank</th>" not in board
    assert "no SAE is exported yet" in report.notes[0]


def figure_of(page: Path, key: str) -> dict[str, Any]:
    found = re.search(rf'<script type="application/json" id="figure-{key}">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found is not None
    figure: dict[str, Any] = json.loads(found[1])
    return figure


def test_legends_name_architectures_in_one_order_as_finished_trials_look(page: Path, run_dir: Path) -> None:
    rows = sorted(json.loads((run_dir / "leaderboard.json").read_text())["rows"], key=lambda row: row["number"])
    order = list(dict.fromkeys(row["architecture"] for row in rows))
    finished = {row["architecture"] for row in rows if row["status"] == "complete"}
    for key in ("curves", "rungs", "slots", "parallel"):
        shown = [trace for trace in figure_of(page, key)["data"] if trace.get("showlegend") and trace.get("name")]
        names = [trace["name"] for trace in sorted(shown, key=lambda trace: trace["legendrank"])]
        assert names == [name for name in order if name in names]
        assert finished <= set(names)
        if key == "curves":
            assert {trace["line"]["dash"] for trace in shown if trace["name"] in finished} == {"solid"}
        if key == "slots":
            assert {trace["marker"]["opacity"] for trace in shown if trace["name"] in finished} == {1}


def test_pruned_trials_come_with_rung_forecast_and_reason(page: Path, run_dir: Path) -> None:
    rows = json.loads((run_dir / "leaderboard.json").read_text())["rows"]
    pruned = [row for row in rows if row["status"] == "pruned"]
    assert pruned
    section = page.read_text().split('<section id="rungs">')[1].split("</section>")[0]
    for row in pruned:
        expected = json.loads((run_dir / f"trials/{row['number']:04d}/trial.json").read_text())["expected"]
        (line,) = re.findall(rf"<tr><td>{row['number']}</td>.*?</tr>", section)
        assert "(12%)" in line
        assert f"{expected['l0']:.1f}" in line
        assert f"{expected['explained_variance']:.4f}" in line
        assert row["reason"].split("; ")[-1] in html.unescape(line)


def test_no_sentence_is_said_twice(page: Path) -> None:
    text = re.sub(r"<(script|style).*?</\1>", "", page.read_text(), flags=re.DOTALL)
    text = html.unescape(re.sub(r"<[^>]+>", " ", re.sub(r"<table>.*?</table>", "", text, flags=re.DOTALL)))
    sentences = [s.strip() for s in re.split(r"(?<=[.;:])\s+", text) if len(s.split()) > 4]
    assert sorted(set(sentences)) == sorted(sentences)


def test_without_a_browser_there_are_no_pngs_and_it_is_said(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(write_module, "find_browser", lambda: None)
    assert main(["report", str(run_dir), "--to", str(tmp_path / "out"), "--no-features"]) == 0
    printed = capsys.readouterr().out
    assert f"wrote {tmp_path / 'out' / 'report.html'}" in printed
    assert "SAESWEEP_BROWSER" in printed
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["report.html"]


def test_wrong_arguments_are_one_message(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run_dir), "--latents", "1,x"]) == 2
    assert main(["report", str(run_dir), "--feature-tokens", "0"]) == 2
    assert main(["report", str(run_dir / "trials")]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert ["--latents" in errors[0], "--feature-tokens" in errors[1], "leaderboard.json" in errors[2]] == [True] * 3


@pytest.fixture(scope="module")
def pages(run_dir: Path, page: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Reports by kind of run."""
    folder = tmp_path_factory.mktemp("pages")
    saesweep.run(MATCHED, run_dir=folder / "matched")
    runs = {
        "matched": folder / "matched",
        "one": changed(run_dir, folder / "one", one_finished),
        "unfinished": changed(run_dir, folder / "unfinished", unfinished, with_best=False),
    }
    made = {"front": page} | {
        kind: write_report(run, to=folder / f"page_{kind}", pngs=False, features=False).page
        for kind, run in runs.items()
    }
    made["study"] = STUDY
    return made


STUDY = ROOT / "docs/studies/smollm2_135m_l12/report.html"
"""The report of a run on a real model, as it is in the docs."""


@pytest.fixture(scope="module")
def tab() -> Iterator[Tab]:
    with open_tab() as opened:
        yield opened


FEW = [
    ("front", 1400, False),
    ("front", 400, True),
    ("unfinished", 400, False),
    ("one", 1400, True),
    ("matched", 400, False),
    ("study", 1400, False),
    ("study", 400, True),
]
ALL = [
    (k, w, d) for k in ("front", "matched", "one", "unfinished", "study") for w in (1400, 400) for d in (False, True)
]


@needs_browser
@pytest.mark.parametrize(
    ("kind", "width", "dark"), [case if case in FEW else pytest.param(*case, marks=pytest.mark.slow) for case in ALL]
)
def test_nothing_is_clipped_covered_pale_or_without_labels(
    pages: dict[str, Path], tab: Tab, kind: str, width: int, dark: bool
) -> None:
    tab.open(pages[kind].as_uri(), width=width, dark=dark)
    assert faults_of(tab) == []
    menu = "select[data-plot=curves]"
    if tab.ask(f"document.querySelector('{menu}') !== null"):  # the scale of every quantity is sane
        for element in tab.ask(f"[...document.querySelector('{menu}').options].map((o) => o.value)"):
            tab.choose(menu, element)
            tab.wait_for(f"document.querySelector('.plot[data-name=curves]').dataset.figure === '{element}'")
            tab.ask("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 30)))")
            assert faults_of(tab) == []
    background = tab.ask("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(20, 24, 29)") is dark


@needs_browser
def test_the_search_for_faults_finds_them(page: Path, tab: Tab) -> None:
    tab.open(page.as_uri(), width=1400)
    tab.ask("document.querySelector('h1').style.color = '#dddddd'")
    tab.ask("document.body.insertAdjacentHTML('beforeend', '<div style=\"width: 2000px\">wide</div>')")
    tab.ask(
        "Plotly.relayout(document.querySelector('.plot[data-name=front]'), "
        "{'xaxis.tickvals': [4, 8, 8.001], 'xaxis.ticktext': ['one', 'two', 'three'], 'yaxis.tickvals': [99]}).then(() => 0)"
    )
    tab.ask("console.error('something broke')")
    found = "\n".join(faults_of(tab))
    for fault in ("contrast", "px wide", "two overlap", "front: 0 tick labels on y", "something broke"):
        assert fault in found


@needs_browser
@pytest.mark.parametrize(
    ("kind", "goal", "title_y"),
    [("front", "expl. var", "explained variance"), ("study", "ΔCE", "ΔCE (nats per token)")],
)
def test_menus_hover_and_legend_work(pages: dict[str, Path], tab: Tab, kind: str, goal: str, title_y: str) -> None:
    tab.open(pages[kind].as_uri())
    curves = "document.querySelector('select[data-plot=curves]')"
    assert tab.ask(f"{curves}.selectedOptions[0].text") == f"{goal}, held out"
    title = "document.querySelector('.plot[data-name=front]').layout.{}axis.title.text"
    assert tab.ask(title.format("x")) == "L0 (active latents per token)"
    assert tab.ask(title.format("y")) == title_y
    other = tab.ask(f"[...{curves}.options].find((o) => o.text === 'MSE, held out').value")
    tab.choose("select[data-plot=curves]", other)
    tab.wait_for("document.querySelector('.plot[data-name=curves]').layout.yaxis.title.text === 'MSE'")
    tab.hover(".plot[data-name=front] .scatterlayer .trace:last-child .point")
    tab.wait_for("document.querySelector('.plot[data-name=front] .hoverlayer .hovertext') !== null")
    assert "trial" in tab.ask("document.querySelector('.plot[data-name=front] .hoverlayer').textContent")
    tab.click(".plot[data-name=front] .legendtoggle")
    tab.wait_for("document.querySelector('.plot[data-name=front]').data[0].visible === 'legendonly'")
    assert tab.errors == []


@needs_browser
def test_parallel_axes_keep_their_distance_on_a_phone(page: Path, tab: Tab) -> None:
    width = figure_of(page, "parallel")["layout"]["meta"]["min_width"]
    assert width > 400
    box = "document.querySelector('.plot[data-name=parallel]')"
    tab.open(page.as_uri(), width=400)
    assert tab.ask(f"{box}.clientWidth") == width
    assert tab.ask(f"{box}.parentElement.scrollWidth > {box}.parentElement.clientWidth")
    assert tab.ask("document.documentElement.scrollWidth") <= 400
    tab.open(page.as_uri(), width=1400)
    assert tab.ask(f"{box}.clientWidth") > width


@needs_browser
def test_a_long_legend_has_room_below_the_buttons(pages: dict[str, Path], tab: Tab, tmp_path: Path) -> None:
    text = pages["matched"].read_text()
    for name in ("topk", "batchtopk", "gated"):
        text = text.replace(f'"name":"{name}"', f'"name":"{name * 9}"')
    crowded = tmp_path / "crowded.html"
    crowded.write_text(text)
    tab.open(crowded.as_uri(), width=1400)
    assert faults_of(tab) == []


@needs_browser
def test_zooming_into_a_logarithmic_axis_keeps_its_labels(page: Path, tab: Tab) -> None:
    tab.open(page.as_uri())
    plot = "document.querySelector('.plot[data-name=front]')"
    tab.ask(f"Plotly.relayout({plot}, {{'xaxis.range[0]': 1.0, 'xaxis.range[1]': 1.05}}).then(() => 0)")
    tab.wait_for(f"{plot}.querySelectorAll('.xtick text').length >= 2")


@needs_browser
def test_colours_belong_to_architectures(pages: dict[str, Path], tab: Tab) -> None:
    seen: dict[str, set[str]] = {}
    for kind in ("front", "matched"):
        tab.open(pages[kind].as_uri())
        marks = tab.ask(
            "[...document.querySelectorAll('.mark')].map((m) => [m.dataset.architecture, m.style.background])"
        )
        traces = tab.ask(
            "[...document.querySelectorAll('.plot')].filter((p) => p.dataset.name !== 'importance').flatMap((p) => "
            "p.data.filter((t) => t.name && t.marker).map((t) => [t.name.split(' ')[0], t.marker.color || t.line.color]))"
        )
        for name, colour in (*marks, *traces):
            if name in ("topk", "batchtopk", "gated"):
                red, green, blue = (
                    (int(colour[i : i + 2], 16) for i in (1, 3, 5))
                    if colour[0] == "#"
                    else (int(n) for n in re.findall(r"\d+", colour)[:3])
                )
                seen.setdefault(name, set()).add(f"#{red:02x}{green:02x}{blue:02x}")
    assert seen == {name: {style_of(name).colour.lower()} for name in ("topk", "batchtopk", "gated")}


@needs_browser
def test_a_browser_draws_every_plot(page: Path, tab: Tab) -> None:
    tab.open(page.as_uri())
    assert tab.ask("document.body.dataset.drawn") == str(len(PLOTS))
    assert tab.ask("document.querySelectorAll('.plot.failed').length") == 0
    assert "trial 0" in tab.ask("document.body.textContent")


@needs_browser
def test_pngs_are_written_for_every_plot(run_dir: Path, tmp_path: Path) -> None:
    report = write_report(run_dir, to=tmp_path)
    assert [file.stem for file in report.pngs] == PLOTS
    for file in report.pngs:
        data = file.read_bytes()
        assert data[:8] == b"\x89PNG\r\n\x1a\n"
        assert int.from_bytes(data[16:20], "big") == 1500  # width
        assert len(data) > 5000
