"""Where the seconds of a run went: counted by the worker and the driver, kept over all starts, shown wherever a result is."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

import saesweep
from saesweep.cli import main
from saesweep.errors import UserError
from saesweep.events import BlockDone, Event, RunEnded
from saesweep.report import write_report
from saesweep.worker import worker as worker_module
from tests.reliability.conftest import few_trials
from tests.sweep.test_secrets import stopping_at


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was interrupted after its first block."""
    run = tmp_path_factory.mktemp("begun") / "run"
    assert saesweep.run(few_trials(), run_dir=run, listeners=(stopping_at(1),)).status == "interrupted"
    return run


def costs_of(run: Path) -> dict[str, float]:
    found: dict[str, float] = json.loads((run / "costs.json").read_text())
    return found


def test_every_second_is_counted_once_over_all_starts(tmp_path: Path) -> None:
    run, tree = tmp_path / "run", few_trials()
    ended: list[RunEnded] = []

    def keep(event: Event) -> None:
        if isinstance(event, RunEnded):
            ended.append(event)

    first = saesweep.run(tree, run_dir=run, listeners=(stopping_at(3), keep))
    assert first.status == "interrupted"
    assert first.costs == costs_of(run)
    assert sum(first.costs.values()) == pytest.approx(ended[0].seconds, abs=0.3)
    second = saesweep.run(tree, run_dir=run, listeners=(keep,))
    assert second.status == "complete"
    assert second.costs == costs_of(run) == ended[1].costs
    assert sum(second.costs.values()) == pytest.approx(ended[0].seconds + ended[1].seconds, abs=0.6)
    assert all(second.costs[kind] >= first.costs[kind] for kind in first.costs)
    for kind in ("training", "language_model", "measuring_rungs", "measuring_ends", "saving", "set_up"):
        assert second.costs[kind] > 0, kind
    again = saesweep.run(tree, run_dir=run)
    assert again.status == "already complete"
    assert again.costs == second.costs


def test_references_that_are_measured_while_a_worker_opens_are_no_set_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(setup: Any) -> tuple[dict[str, Any], ...]:
        time.sleep(0.5)
        return ()

    monkeypatch.setattr(worker_module, "measure_references", slow)
    started = time.monotonic()
    result = saesweep.run(few_trials(), run_dir=tmp_path / "run")
    assert result.costs["measuring_ends"] >= 0.5
    assert sum(result.costs.values()) <= time.monotonic() - started + 0.1


def test_a_slow_listener_is_other(tmp_path: Path) -> None:
    """Time of nobody's work is not hidden in training."""

    def slow(event: Event) -> None:
        if isinstance(event, BlockDone):
            time.sleep(0.05)

    result = saesweep.run(few_trials(), run_dir=tmp_path / "run", listeners=(slow,))
    assert result.costs["other"] > 0.05 * 8


def test_what_is_said_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, file = tmp_path / "run", tmp_path / "e.yaml"
    file.write_text(json.dumps(few_trials()))
    assert main(["run", str(file), "--run-dir", str(run), "--display", "plain"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "where the time went: " in line]
    assert "training " in line
    assert "%" in line
    assert main(["run", str(file), "--run-dir", str(run), "--display", "json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["costs"] == costs_of(run)
    page = write_report(run, features=False, pngs=False).page.read_text()
    assert "Where the time went" in page
    assert "training SAEs" in page


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"training": "x"}', '{"training": -1}', '{"training": 1e999}', '{"travel": 1}', '{"training": true}'],
)
def test_a_damaged_table_is_one_message(
    text: str, begun: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(begun, tmp_path / "run")
    (run / "costs.json").write_text(text)
    with pytest.raises(UserError, match=r"costs\.json: damaged.*remove it"):
        saesweep.run(few_trials(), run_dir=run)
    assert main(["report", str(run), "--no-png", "--no-features"]) == 2
    assert "costs.json: damaged" in capsys.readouterr().err


def test_a_run_resumes_without_its_table(begun: Path, tmp_path: Path) -> None:
    """It is what the message about a damaged one advises."""
    run = shutil.copytree(begun, tmp_path / "run")
    (run / "costs.json").unlink()
    assert saesweep.run(few_trials(), run_dir=run).status == "complete"


def lm_tree(**evaluation: Any) -> dict[str, Any]:
    """Return two trials on the built-in model, measured at one rung and at the end."""
    return {
        "name": "lm",
        "base": {
            "model_name": "builtin:tiny-lm",
            "dataset_path": "builtin:python-docs",
            "hook_name": "model.layers.2",
            "context_size": 32,
            "training_tokens": 4096,
            "train_batch_size_tokens": 256,
            "device": "cpu",
            "sae": {"architecture": "topk", "d_sae": 128, "k": 8},
        },
        "space": {"sae.k": {"choice": [4, 16]}},
        "objective": {"minimize": "delta_ce"},
        "evaluation": {"select_tokens": 4096, "test_tokens": 4096, **evaluation},
        "search": {"sampler": "grid", "trials": 2, "rungs": ["50%"], "min_rung_steps": 1, "min_per_architecture": 2},
        "cohort": {"size": 2, "block_tokens": 2048},
    }


def measured(run: Path) -> list[dict[str, Any]]:
    lines = (run / "trials" / "0000" / "metrics.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if "l0" in line]


def test_rungs_measure_the_first_tokens_and_ends_all_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rungs, ends and the test part run the model on as many contexts as the file says, the clean pass once."""
    from saesweep.models import LateStart

    clean: list[int] = []
    spliced: list[int] = []
    run_clean, run_spliced = LateStart._run_clean, LateStart.spliced
    monkeypatch.setattr(
        LateStart, "_run_clean", lambda self, tokens: clean.append(tokens.numel()) or run_clean(self, tokens)
    )
    monkeypatch.setattr(
        LateStart, "spliced", lambda self, tokens, new: spliced.append(tokens.numel()) or run_spliced(self, tokens, new)
    )
    saesweep.run(lm_tree(ce_tokens=2048, rung_share=0.5), run_dir=tmp_path / "run")
    assert sum(clean) == 2048 + 2048  # select and test
    # Ablated once in each part; two SAEs at the rung (half) and at the end, one on test.
    assert sum(spliced) == 2 * 2048 + 2 * 1024 + 2 * 2048 + 2048
    rung, end = measured(tmp_path / "run")
    assert rung["tokens"] == 2048
    assert {"delta_ce", "explained_variance"} <= rung.keys()
    assert end["delta_ce_stderr"] > 0


def test_a_full_share_at_rungs_is_the_whole_part(tmp_path: Path) -> None:
    whole, quarter = (
        saesweep.run(lm_tree(rung_share=share), run_dir=tmp_path / str(share)) and measured(tmp_path / str(share))
        for share in (1.0, 0.25)
    )
    assert whole[0]["delta_ce"] != quarter[0]["delta_ce"]
    assert whole[0]["delta_ce"] == pytest.approx(quarter[0]["delta_ce"], rel=0.2)
    for name in ("delta_ce", "l0", "explained_variance"):  # what is decided at the end does not depend on it
        assert whole[1][name] == quarter[1][name]


def test_rungs_without_a_need_for_cross_entropy_run_no_language_model(tmp_path: Path) -> None:
    tree = lm_tree()
    tree["objective"] = {"maximize": "explained_variance", "subject_to": {"l0": {"max": 64}}}
    saesweep.run(tree, run_dir=tmp_path / "run")
    rung, end = measured(tmp_path / "run")
    assert "delta_ce" not in rung
    assert "delta_ce" in end
    tree["objective"]["subject_to"] = {"delta_ce": {"max": 100}}
    saesweep.run(tree, run_dir=tmp_path / "limited")
    assert all("delta_ce" in line for line in measured(tmp_path / "limited"))
