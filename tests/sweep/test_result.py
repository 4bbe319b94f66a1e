"""What `saesweep.run` returns: a short repr, HTML, a flat table, the best SAE."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import saesweep
from saesweep.driver import Result
from saesweep.errors import UserError
from tests.display.runs import ROWS, STARTED

RESULT = Result(
    status="complete",
    run_dir=Path("runs/quick"),
    rows=ROWS,
    best=3,
    best_dir=Path("runs/quick/best"),
    test_metrics={"l0": 32.1, "delta_ce": 0.21},
    notes=("best/ is the knee of the <front>",),
    metrics=STARTED.metrics,
)


def test_the_public_names_are_listed() -> None:
    assert set(dir(saesweep)) == set(saesweep.__all__)
    assert {"run", "Result", "load_experiment", "load_sae_folder"} <= set(dir(saesweep))


def test_the_repr_is_one_short_line() -> None:
    assert repr(RESULT) == (
        "Result(complete: 2 complete, 1 training, 1 pruned, 1 failed; best: trial 3 (batchtopk k 32), "
        "L0 31.9 · ΔCE 0.2134 -> runs/quick/best)"
    )


def test_the_repr_of_an_interrupted_run_says_how_to_resume() -> None:
    result = replace(RESULT, status="interrupted", best=None, best_dir=None, resume_command="saesweep run a.yaml")
    assert repr(result).endswith("no best before the end; resume with: saesweep run a.yaml)")
    with pytest.raises(UserError, match=r"runs/quick: no best before the end; resume with: saesweep run a\.yaml"):
        result.best_sae()


def test_the_repr_of_a_run_without_a_best_says_why() -> None:
    result = replace(RESULT, rows=(), best=None, best_dir=None)
    assert repr(result) == (
        "Result(complete: no trials; no trial finished with a value of the objective, so nothing was exported)"
    )


def test_the_html_is_the_leaderboard_the_best_and_where_it_lies() -> None:
    html = RESULT._repr_html_()
    assert html.count("<tr") == 1 + len(ROWS)
    assert "★◆ 1" in html
    assert "best: trial 3 (batchtopk k 32) -&gt; runs/quick/best" in html
    assert "test part (read once): L0 32.1 · ΔCE 0.2100" in html
    assert "knee of the &lt;front&gt;" in html  # what a run says is text, whatever it holds
    assert "<script" not in replace(RESULT, notes=("<script>",))._repr_html_()


def test_the_table_is_flat_one_line_per_trial_best_first() -> None:
    frame = RESULT.to_dataframe()
    assert list(frame["trial"]) == [row.number for row in ROWS]
    assert list(frame["is_best"]) == [True, False, False, False, False]
    assert {"rank", "status", "architecture", "lr", "sae.k", "l0", "delta_ce", "tokens", "reason"} <= set(frame.columns)
    assert frame["lr"].iloc[1] == 7e-5  # once, from the row
    assert frame["l0"].iloc[0] == 31.9
    assert frame["l0"].isna().iloc[4]  # nothing was measured
    assert not any(isinstance(value, (dict, list, tuple)) for value in frame.iloc[0])


def test_whole_numbers_that_some_trials_lack_stay_whole() -> None:
    frame = RESULT.to_dataframe()
    lacking = [row.rank for row in ROWS].count(None)
    assert 0 < lacking < len(ROWS)
    assert (str(frame["rank"].dtype), frame["rank"].isna().sum()) == ("Int64", lacking)
    assert str(frame["tokens"].dtype) == "int64"
    assert replace(RESULT, rows=()).to_dataframe().empty


def test_standard_deviations_over_seeds_are_columns() -> None:
    rows = (replace(ROWS[0], replicates=3, spread={"l0": 0.5}),)
    assert replace(RESULT, rows=rows).to_dataframe()["l0_std"].iloc[0] == 0.5
