"""A sweep at matched L0, from file to folders: shares, exports, records, confirmation, determinism."""

from __future__ import annotations

import copy
import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

import saesweep
from saesweep.cli.entry import main
from saesweep.display.saved import read_leaderboard
from saesweep.errors import UserError
from saesweep.events import BlockDone, Event
from saesweep.report import write_report
from saesweep.runs import RunDirectory
from saesweep.worker.compared import load_by_context
from saesweep.worker.finals import Finals
from tests.sweep.studies import small_sweep, snapshot

Tree = dict[str, Any]


def matched_sweep() -> Tree:
    """Return three architectures at three targets on synthetic activations, 120 steps each."""
    tree = small_sweep()
    tree["base"]["training_tokens"] = 15_360
    tree["base"]["train_batch_size_tokens"] = 128
    tree["by_architecture"]["jumprelu"] |= {"sae.l0_warm_up_steps": "5%", "sae.l0_coefficient": 0.2}
    tree["by_architecture"]["standard"] = {"sae.l1_coefficient": 1.0}
    tree["space"] = {"sae.architecture": {"choice": ["topk", "jumprelu", "standard"]}}
    tree["objective"] = {"minimize": "mse", "matched": {"l0": [4, 8, 16]}}
    tree["search"] = {"sampler": "grid", "pruner": "none", "replicates": 2}
    tree["cohort"] = {"size": 8, "checkpoint_seconds": 0}
    return tree


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> saesweep.Result:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Finals, "_remeasure", None)  # nothing that has finished is measured a second time
        return saesweep.run(matched_sweep(), run_dir=tmp_path_factory.mktemp("matched") / "run")


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_every_architecture_is_tried_at_every_target(finished: saesweep.Result) -> None:
    pairs = sorted((row.architecture, row.target_l0) for row in finished.rows)
    assert pairs == sorted((a, t) for a in ("jumprelu", "standard", "topk") for t in (4, 8, 16))
    assert {row.status for row in finished.rows} == {"complete"}
    for row in finished.rows:
        if row.architecture == "topk":
            assert row.metrics["l0"] == pytest.approx(row.target_l0, rel=0.05)
            assert row.coefficient == {}
    assert {(e.architecture, e.target_l0) for e in finished.matched} == set(pairs)
    assert all(e.stderr is not None and e.seed_stderr is not None for e in finished.matched)


def test_what_finished_trials_are_compared_by_is_kept(finished: saesweep.Result, tmp_path: Path) -> None:
    directory = RunDirectory(finished.run_dir)
    for row in finished.rows:
        kept = load_by_context(directory, row.number, "mse")
        assert kept is not None
        assert kept.values().item() == pytest.approx(row.metrics["mse"], rel=1e-9)
    copied = RunDirectory(tmp_path)
    for number, data in enumerate((b"", b"\xff" * 100, b"{}")):
        copied.trial(number).mkdir(parents=True)
        (copied.trial(number) / "by_context.safetensors").write_bytes(data)
        assert load_by_context(copied, number, "mse") is None
    assert load_by_context(directory, 0, "l0") is None
    assert load_by_context(copied, 9, "mse") is None


def test_the_frozen_coefficient_is_recorded_and_exported(finished: saesweep.Result) -> None:
    row = next(row for row in finished.rows if (row.architecture, row.target_l0) == ("standard", 4))
    assert row.coefficient["field"] == "sae.l1_coefficient"
    assert row.coefficient["start"] == 1.0
    assert row.coefficient["frozen_from_tokens"] == 84 * 128
    folder = finished.run_dir / "trials" / f"{row.number:04d}"
    record = read(folder / "trial.json")
    assert record["target_l0"] == 4
    assert record["coefficient"] == row.coefficient
    for replicate, name in enumerate(("sae", "sae-replicate-1")):
        frozen = row.coefficient["frozen"][replicate]
        assert frozen != 1.0
        assert read(folder / name / "runner_cfg.json")["sae"]["l1_coefficient"] == frozen
        provenance = read(folder / name / "provenance.json")
        assert (provenance["target_l0"], provenance["coefficient"]) == (4, row.coefficient)
        alone = saesweep.load_experiment(folder / name / "experiment.yaml")
        assert alone.base_run().sae.model_dump()["l1_coefficient"] == frozen
        assert alone.n_trials == 1
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    path = [line for line in lines if line["kind"] == "control" and line["replicate"] == 1]
    assert len(path) == 120
    assert path[0]["details/l1_coefficient"] == 1.0
    assert path[-1]["details/l1_coefficient"] == row.coefficient["frozen"][1]
    assert len({line["details/l1_coefficient"] for line in path if line["tokens"] >= 84 * 128}) == 1
    assert all(line["metrics/l0"] > 0 for line in path)


def test_each_winner_is_exported_and_measured_once_on_test(finished: saesweep.Result) -> None:
    winners = [entry for entry in finished.matched if entry.is_winner]
    assert winners
    folders = {f"{entry.target_l0:g}-{entry.architecture}" for entry in winners}
    assert {p.name for p in (finished.run_dir / "matched").iterdir()} == folders
    for entry in winners:
        provenance = read(
            finished.run_dir / "matched" / f"{entry.target_l0:g}-{entry.architecture}" / "provenance.json"
        )
        assert provenance["trial"] == entry.trial
        assert provenance["test_metrics"] == dict(entry.test_metrics)
        assert provenance["matched"]["target_l0"] == entry.target_l0
    assert not any(entry.test_metrics for entry in finished.matched if not entry.is_winner)
    at_8 = next(entry for entry in winners if entry.target_l0 == 8)
    assert finished.best == at_8.trial
    assert finished.test_metrics == at_8.test_metrics
    assert (finished.run_dir / "best" / "sae_weights.safetensors").exists()
    assert any("best/ holds the winner at L0 8" in note for note in finished.notes)


def test_the_table_is_shown_and_saved(finished: saesweep.Result, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["leaderboard", str(finished.run_dir)]) == 0
    shown = capsys.readouterr().out
    assert "best at each L0 (MSE at exactly that L0" in shown
    assert "best" in next(line for line in shown.splitlines() if line.startswith("   8"))
    assert main(["leaderboard", str(finished.run_dir), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["matched"]) == 9
    again = saesweep.run(matched_sweep(), run_dir=finished.run_dir)
    assert again.status == "already complete"
    assert [e.trial for e in again.matched] == [e.trial for e in finished.matched]


def test_the_report_shows_the_table_and_a_curve_for_each_architecture(
    finished: saesweep.Result, tmp_path: Path
) -> None:
    text = write_report(finished.run_dir, to=tmp_path, pngs=False).page.read_text()
    section = text.split('<section id="matched">')[1].split("</section>")[0]
    for entry in finished.matched:
        assert f"</i>{entry.architecture}</td>" in section
        assert f">{entry.l0:.2f} (" in section
    assert section.count('<tr class="best">') == 3
    drawn = json.loads(text.split('id="figure-matched">')[1].split("</script>")[0].replace("\\u003c", "<"))
    curves = {trace["name"]: trace for trace in drawn["data"]}
    assert set(curves) == {e.architecture for e in finished.matched if e.is_comparable}
    assert "topk" in curves
    for name, trace in curves.items():
        own = {e.target_l0: e.metrics["mse"] for e in finished.matched if e.architecture == name and e.is_comparable}
        assert trace["x"] == pytest.approx(sorted(own), rel=0.05)  # the architectures of a target stand side by side
        assert trace["y"] == [own[target] for target in sorted(own)]


def test_a_table_without_its_goal_is_refused(finished: saesweep.Result, tmp_path: Path) -> None:
    board = read(finished.run_dir / "leaderboard.json")
    for change in ({"metrics": {}}, {"target_l0": 0.0}):
        damaged = {**board, "matched": [{**board["matched"][0], **change}]}
        (tmp_path / "leaderboard.json").write_text(json.dumps(damaged))
        with pytest.raises(UserError, match="is no leaderboard of this version"):
            read_leaderboard(tmp_path)


def test_the_winners_are_published_by_their_targets(
    finished: saesweep.Result, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", str(finished.run_dir), "--repo", "me/saes", "--matched", "--dry-run"]) == 0
    listed = capsys.readouterr().out
    for folder in (finished.run_dir / "matched").iterdir():
        assert f"synthetic/{folder.name}/cfg.json" in listed


def test_the_same_file_twice_and_stopped_on_the_way_gives_the_same_study(
    finished: saesweep.Result, tmp_path: Path
) -> None:
    blocks = 0

    def interrupt(event: Event) -> None:
        nonlocal blocks
        if isinstance(event, BlockDone):
            blocks += 1
            if blocks == 7:
                os.kill(os.getpid(), signal.SIGINT)
            if blocks == 26:  # trained and not saved: this block is trained again
                raise KeyboardInterrupt

    def run() -> saesweep.Result:
        return saesweep.run(matched_sweep(), run_dir=tmp_path / "run", listeners=[interrupt])

    assert run().status == "interrupted"
    with pytest.raises(KeyboardInterrupt):
        run()
    assert run().status == "complete"
    assert snapshot(tmp_path / "run") == snapshot(finished.run_dir)
    assert (
        read(tmp_path / "run" / "leaderboard.json")["matched"] == read(finished.run_dir / "leaderboard.json")["matched"]
    )


def test_shares_baselines_and_rungs(tmp_path: Path) -> None:
    tree = matched_sweep()
    tree["space"]["lr"] = {"float": [1e-3, 1e-2], "log": True}
    tree["search"] = {
        "trials": 11,
        "rungs": ["20%", "80%"],
        "min_rung_steps": 5,
        "min_probability": 0.3,
        "min_per_architecture": 0,
        "baselines": [{"sae.architecture": "topk", "target_l0": 16, "lr": 3e-3}, {"sae.architecture": "standard"}],
    }
    tree["cohort"]["size"] = 11
    result = saesweep.run(tree, run_dir=tmp_path / "run")
    rows = sorted(result.rows, key=lambda row: row.number)
    assert [(r.architecture, r.target_l0, r.is_baseline) for r in rows[:2]] == [
        ("topk", 16, True),
        ("standard", 4, True),
    ]
    counts = {(r.architecture, r.target_l0): 0 for r in rows}
    for r in rows:
        counts[r.architecture, r.target_l0] += 1
    assert len(counts) == 9
    assert max(counts.values()) - min(counts.values()) <= 1
    # Only trials at the same target are rivals.
    by_number = {r.number: r for r in rows}
    for r in rows:
        if bar := re.search(r"the bar is trial (\d+)", r.reason):
            assert by_number[int(bar[1])].target_l0 == r.target_l0


def test_confirmation_trains_the_finalists_again_at_their_frozen_coefficients(
    finished: saesweep.Result, tmp_path: Path
) -> None:
    tree = matched_sweep()
    tree["search"] |= {"replicates": 1, "confirm": {"top": 3, "replicates": 1, "training_tokens": "1x"}}
    tree["cohort"]["size"] = 9
    result = saesweep.run(copy.deepcopy(tree), run_dir=tmp_path / "run")
    (folder,) = (tmp_path / "run" / "confirm").iterdir()
    board = read(folder / "leaderboard.json")
    assert len(board["rows"]) == 9
    searched = {row.number: row for row in result.rows}
    by_pair = {(row.architecture, row.target_l0): row for row in searched.values()}
    for row in board["rows"]:
        before = by_pair[row["architecture"], row["target_l0"]]
        if before.coefficient:
            assert row["params"][before.coefficient["field"]] == pytest.approx(before.coefficient["frozen"][0])
            assert row["coefficient"] == {}  # not steered again
    assert {e.trial for e in result.matched} <= set(searched)
    assert read(tmp_path / "run" / "leaderboard.json")["matched"] == json.loads(
        json.dumps([{**entry, "trial": searched_number(entry, by_pair)} for entry in board["matched"]])
    )


def searched_number(entry: Any, by_pair: Any) -> int:
    number: int = by_pair[entry["architecture"], entry["target_l0"]].number
    return number
