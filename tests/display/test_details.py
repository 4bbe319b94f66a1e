"""`leaderboard --details`: the best so far, importances, choices at equal L0."""

import pytest

from saesweep.cli import main
from saesweep.display import render_text
from saesweep.display.details import hypervolumes, sparkline
from tests.display.runs import row
from tests.sweep.conftest import tree as tree


def test_details_of_a_real_run(tree, tmp_path, capsys):
    import saesweep

    del tree["by_architecture"], tree["space"]["sae.l0_coefficient"]
    tree["base"]["training_tokens"] = 5_120
    tree["space"]["sae.architecture"] = {"choice": ["topk", "standard"]}
    tree["space"]["lr_scheduler_name"] = {"choice": ["constant", "cosineannealing"]}
    tree["objective"] = {"minimize": "mse"}
    tree["search"] = {"trials": 18, "pruner": "none"}
    saesweep.run(tree, run_dir=tmp_path / "run")
    capsys.readouterr()
    assert main(["leaderboard", str(tmp_path / "run"), "--details"]) == 0
    text = capsys.readouterr().out.partition("best MSE so far")[2]
    assert "over 18 finished trials" in text
    assert "all trials (18), minimize mse: " in text
    assert "topk (" in text  # with its share, or among those with too few trials
    assert "sae.architecture, MSE: topk " in text or "sae.architecture, MSE: standard " in text
    assert "lr_scheduler_name, MSE: c" in text


def test_details_need_a_run_and_no_json(tmp_path, capsys):
    assert main(["leaderboard", str(tmp_path), "--details", "--json"]) == 2
    assert "--details" in capsys.readouterr().err


def test_the_front_only_grows_and_ends_at_its_whole_area():
    rows = [row(i, metrics={"l0": l0, "delta_ce": ce}) for i, (l0, ce) in enumerate([(8, 1.0), (64, 0.1), (32, 0.1)])]
    areas = hypervolumes(rows, ["minimize l0", "minimize delta_ce"])
    assert areas == sorted(areas)
    assert areas[0] == 0  # its delta_ce is the worst of all
    assert areas[2] > areas[1] == 0


@pytest.mark.parametrize(("values", "text"), [([0, 1, 2], "▁▅█"), ([1, 1], "▁▁")])
def test_sparkline(values, text):
    assert sparkline(values, min(values), max(values)) == text


def test_several_streams_have_a_column_of_their_own():
    rows = [
        row(i, stream=f"context_size {size}", params={"context_size": size, "lr": 1e-3})
        for i, size in ((0, 16), (1, 32))
    ]
    heading = next(line for line in render_text(rows).splitlines() if line.startswith("rank"))
    assert heading.split()[:3] == ["rank", "trial", "stream"]
    assert "context_size" not in heading  # the stream says it
    assert "stream" not in render_text([row(0), row(1)])
