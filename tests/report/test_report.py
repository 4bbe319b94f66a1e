"""The report of a small synthetic run: its parts, its size, its isolation from any network, and a real browser."""

import html
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import saesweep
from saesweep.cli import main
from saesweep.report import write as write_module
from saesweep.report import write_report
from saesweep.report.html import json_script
from tests.report.browsing import dump_dom, needs_browser

PLOTS = [
    "front_explained_variance",
    "curves",
    "parallel_l0",
    "parallel_explained_variance",
    "importance",
    "slots",
    "dead_latents",
    "density",
    "rate",
]
TREE: dict[str, Any] = {
    "name": "tiny",
    "base": {
        "model_name": None,
        "hook_name": "synthetic",
        "dataset_path": "builtin:synthetic",
        "training_tokens": 20_480,
        "train_batch_size_tokens": 256,
        "lr": 3e-3,
        "device": "cpu",
        "sae": {"d_in": 32, "d_sae": 128},
    },
    "space": {
        "sae.architecture": {"choice": ["topk", "batchtopk"]},
        "sae.k": {"int": [2, 32], "log": True},
        "lr": {"float": [1e-3, 1e-2], "log": True},
    },
    "objective": {"pareto": [{"minimize": "l0"}, {"maximize": "explained_variance"}]},
    "evaluation": {"select_tokens": 2048, "test_tokens": 2048},
    "search": {
        "trials": 12,
        "stratify": "sae.architecture",
        "rungs": ["12.5%"],
        "min_rung_steps": 5,
        "min_probability": 0.3,
        "min_per_architecture": 4,  # importances need eight finished trials
    },
    "cohort": {"size": 4},
}


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
    for section in ("winner", "fronts", "curves", "search", "slots", "latents", "cost", "leaderboard"):
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


def test_a_name_cannot_break_out_of_its_data() -> None:
    text = json_script("x", {"a": "</script><script>alert(1)</script><!--"})
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
    copy = tmp_path / "run"
    shutil.copytree(run_dir, copy)
    board = json.loads((copy / "leaderboard.json").read_text())
    board |= {"status": "running", "best": None, "test_metrics": {}, "notes": []}
    (copy / "leaderboard.json").write_text(json.dumps(board))
    shutil.rmtree(copy / "best")
    report = write_report(copy, pngs=False)
    assert "still going" in report.page.read_text()
    assert "no SAE is exported yet" in report.notes[0]


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
    assert main(["report", str(run_dir), "--per-band", "0"]) == 2
    assert main(["report", str(run_dir / "trials")]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert ["--latents" in errors[0], "--per-band" in errors[1], "leaderboard.json" in errors[2]] == [True] * 3


@needs_browser
def test_a_browser_draws_every_plot(page: Path) -> None:
    dom = dump_dom(page.as_uri())
    assert f'data-drawn="{len(PLOTS)}"' in dom
    assert not re.search(r'class="plot[^"]*failed', dom)
    assert "trial 0" in html.unescape(dom)


@needs_browser
def test_pngs_are_written_for_every_plot(run_dir: Path, tmp_path: Path) -> None:
    report = write_report(run_dir, to=tmp_path)
    assert [file.stem for file in report.pngs] == PLOTS
    for file in report.pngs:
        data = file.read_bytes()
        assert data[:8] == b"\x89PNG\r\n\x1a\n"
        assert int.from_bytes(data[16:20], "big") == 1500  # width
        assert len(data) > 5000
