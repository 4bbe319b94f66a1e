"""Weights & Biases: offline runs of a whole sweep read back; no network, no key; a resumed trial continues its run."""

import copy
import json
import signal
from pathlib import Path
from typing import Any

import pytest
import wandb

import saesweep
from saesweep.errors import UserError
from saesweep.events import BlockDone, Note
from saesweep.tracking import wandb_runs
from tests.tracking.offline import OfflineRun, read_offline_run

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of wandb's own imports

SAELENS_NAMES = {
    "losses/overall_loss",
    "losses/mse_loss",
    "metrics/explained_variance",
    "metrics/l0",
    "sparsity/dead_features",
    "details/current_learning_rate",
}


TREE: dict[str, Any] = {
    "name": "tracked",
    "base": {
        "model_name": None,
        "hook_name": "synthetic",
        "dataset_path": "builtin:synthetic",
        "training_tokens": 10_240,
        "train_batch_size_tokens": 256,
        "lr": 3e-3,
        "device": "cpu",
        "logger": {"log_to_wandb": True, "wandb_project": "p"},
        "sae": {"d_in": 32, "d_sae": 128},
    },
    "space": {
        "sae.architecture": {"choice": ["topk", "batchtopk"]},
        "sae.k": {"int": [2, 32], "log": True},
    },
    "evaluation": {"select_tokens": 2048, "test_tokens": 2048},
    "search": {"trials": 5, "rungs": ["12.5%", "50%"], "min_rung_steps": 5, "min_probability": 0.3},
    "cohort": {"size": 2, "checkpoint_seconds": 0},
}


@pytest.fixture
def tree() -> dict[str, Any]:
    return copy.deepcopy(TREE)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")


def all_offline_runs(run_dir: Path) -> list[OfflineRun]:
    return [read_offline_run(file) for file in sorted(run_dir.glob("wandb/*run-*/run-*.wandb"))]


def offline_runs(run_dir: Path) -> list[OfflineRun]:
    """Those of the trials."""
    return [run for run in all_offline_runs(run_dir) if run.job_type == "trial"]


def sweep_table(run_dir: Path, name: str) -> list[dict[str, Any]]:
    (file,) = run_dir.glob(f"wandb/*run-*/files/media/table/{name}_*.table.json")
    table = json.loads(file.read_text())
    return [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]


def lines(run_dir: Path, number: int, kind: str) -> list[dict[str, Any]]:
    text = (run_dir / "trials" / f"{number:04d}" / "metrics.jsonl").read_text()
    return [line for line in map(json.loads, text.splitlines()) if line["kind"] == kind]


@pytest.mark.usefixtures("offline")
def test_every_trial_is_a_run_with_config_and_metrics(tree: dict[str, Any], tmp_path: Path) -> None:
    result = saesweep.run(tree, run_dir=tmp_path / "run")
    runs = {run.config["trial"]: run for run in offline_runs(tmp_path / "run")}
    assert set(runs) == {row.number for row in result.rows}
    assert len({run.group for run in runs.values()}) == 1
    assert len({run.id for run in runs.values()}) == len(runs)
    for row in result.rows:
        run = runs[row.number]
        assert (run.project, run.name) == ("p", f"{row.architecture}-k{row.params['sae.k']}")
        assert run.config["sae"]["architecture"] == row.architecture
        assert run.config["sae"]["k"] == row.params["sae.k"]
        assert run.config["train_batch_size_tokens"] == 256
        assert set().union(*run.history) >= SAELENS_NAMES
        trained = lines(tmp_path / "run", row.number, "train")
        assert run.column("losses/overall_loss") == pytest.approx([line["losses/overall_loss"] for line in trained])
        assert run.column("metrics/l0")[-1] == pytest.approx(row.metrics["l0"])
        assert run.column("metrics/cossim")[-1] == pytest.approx(row.metrics["cosine_similarity"])
        assert run.history[-1]["_step"] == row.tokens // 256
        bars = run.column("plots/feature_density_histogram/values")
        assert len(bars) == len(lines(tmp_path / "run", row.number, "select"))  # at every rung, not at the end alone
        assert {sum(counts) for counts in bars} == {128}
        assert (run.summary["status"], run.exit_code) == (row.status, 0)
        if row.status == "complete":
            assert "plots/feature_density_line_chart/values" in set().union(*run.history)
            assert "sae_weights.safetensors" in run.artifacts[f"{run.id}_sae"]
        else:
            assert not run.artifacts


@pytest.mark.usefixtures("offline")
def test_the_sweep_has_a_run_with_its_table_and_front(tree: dict[str, Any], tmp_path: Path) -> None:
    tree["base"]["logger"]["run_name"] = "mine"
    result = saesweep.run(tree, run_dir=tmp_path / "run")
    runs = all_offline_runs(tmp_path / "run")
    (sweep,) = [run for run in runs if run.job_type == "sweep"]
    assert sweep.name == "mine-sweep"
    assert {run.group for run in runs} == {sweep.group}
    assert all(run.name.startswith(("mine-topk-k", "mine-batchtopk-k")) for run in runs if run.job_type == "trial")
    assert (sweep.summary["best"], sweep.summary["trials"], sweep.exit_code) == (result.best, len(result.rows), 0)
    table = {row["trial"]: row for row in sweep_table(tmp_path / "run", "sweep/trials")}
    assert set(table) == {row.number for row in result.rows}
    for row in result.rows:
        found = table[row.number]
        assert (found["architecture"], found["state"], found["reason"]) == (row.architecture, row.status, row.reason)
        assert (found["sae.k"], found["l0"]) == (row.params["sae.k"], pytest.approx(row.metrics["l0"]))
    front = {row["trial"]: row for row in sweep_table(tmp_path / "run", "sweep/front")}
    assert {n for n, row in front.items() if row["on_front"]} == {row.number for row in result.rows if row.on_front}
    assert {"sweep/trials", "sweep/front", "plots/front_table"} <= {key.partition("/_")[0] for key in _top_keys(sweep)}


@pytest.mark.usefixtures("offline")
def test_the_matched_verdict_is_a_table_and_a_plot(tree: dict[str, Any], tmp_path: Path) -> None:
    tree |= {"space": {"sae.architecture": {"choice": ["topk", "batchtopk"]}}}
    tree |= {
        "objective": {"minimize": "mse", "matched": {"l0": [4, 8]}},
        "search": {"sampler": "grid", "pruner": "none"},
    }
    result = saesweep.run(tree, run_dir=tmp_path / "run")
    table = {(row["target_l0"], row["architecture"]): row for row in sweep_table(tmp_path / "run", "sweep/matched")}
    for entry in result.matched:
        found = table[entry.target_l0, entry.architecture]
        assert found["mse"] == pytest.approx(entry.metrics["mse"])
        assert (found["is_winner"], found["is_tied"]) == (entry.is_winner, entry.is_tied)
    lines = sweep_table(tmp_path / "run", "plots/matched_table")
    assert {row["lineKey"] for row in lines} == {"topk", "batchtopk"}


def _top_keys(run: OfflineRun) -> set[str]:
    return {"/".join(key.split("/")[:2]) for row in run.history for key in row}


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("log_weights", [True, False])
def test_snapshots_are_versions_of_an_artifact(tree: dict[str, Any], tmp_path: Path, log_weights: bool) -> None:
    tree["base"] |= {"n_checkpoints": 2, "save_final_checkpoint": True, "training_tokens": 5120}
    tree["base"]["logger"]["log_weights_to_wandb"] = log_weights
    tree["search"] |= {"trials": 1, "rungs": []}
    saesweep.run(tree, run_dir=tmp_path / "run")
    (run,) = offline_runs(tmp_path / "run")
    name = f"{run.id}_checkpoint"
    versions = [version for version in run.versions if version[0] == name]
    if not log_weights:
        assert not versions
        assert "sae_weights.safetensors" not in run.artifacts[f"{run.id}_sae"]
        return
    folders = sorted((tmp_path / "run" / "trials" / "0000" / "snapshots").iterdir(), key=lambda f: f.stat().st_mtime_ns)
    assert [metadata["tokens"] for _, metadata, _ in versions] == [int(f.name.split("_")[-1]) for f in folders]
    assert ["final" in aliases for _, _, aliases in versions] == [False, False, True]
    assert set(run.artifacts[name]) == {file.name for file in folders[-1].iterdir()}


@pytest.mark.usefixtures("offline")
def test_a_resumed_trial_continues_its_run(tree: dict[str, Any], tmp_path: Path) -> None:
    blocks = 0

    def interrupt(event: Any) -> None:
        nonlocal blocks
        blocks += isinstance(event, BlockDone)
        if isinstance(event, BlockDone) and blocks == 3:
            signal.raise_signal(signal.SIGINT)

    assert saesweep.run(tree, run_dir=tmp_path / "run", listeners=[interrupt]).status == "interrupted"
    result = saesweep.run(tree, run_dir=tmp_path / "run")
    assert result.status == "complete"
    parts: dict[int, list[OfflineRun]] = {}
    for run in offline_runs(tmp_path / "run"):
        parts.setdefault(run.config["trial"], []).append(run)
    assert any(len(found) == 2 for found in parts.values())
    for number, found in parts.items():
        assert len({run.id for run in found}) == 1  # what `wandb sync` joins
        losses = [value for run in found for value in run.column("losses/overall_loss")]
        expected = [line["losses/overall_loss"] for line in lines(tmp_path / "run", number, "train")]
        assert losses == pytest.approx(expected)


@pytest.mark.usefixtures("offline")
def test_logging_may_be_switched_on_for_a_run_that_resumes(tree: dict[str, Any], tmp_path: Path) -> None:
    logger = tree["base"].pop("logger")
    saesweep.run(tree, run_dir=tmp_path / "run")
    assert not (tmp_path / "run" / "wandb").exists()
    tree["base"]["logger"] = logger
    tree["search"]["trials"] = 6
    saesweep.run(tree, run_dir=tmp_path / "run")
    assert [run.config["trial"] for run in offline_runs(tmp_path / "run")] == [5]


def test_without_a_network_the_sweep_finishes_and_is_logged_offline(
    tree: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setattr(wandb_runs, "INIT_SECONDS", 1.0)
    wandb.teardown()  # it reads the environment once in a process
    notes: list[Note] = []
    tree["search"]["trials"] = 3
    result = saesweep.run(
        tree, run_dir=tmp_path / "run", listeners=[lambda e: notes.append(e) if isinstance(e, Note) else None]
    )
    assert result.status == "complete"
    assert ["cannot be reached" in note.message for note in notes] == [True]
    found = {run.config["trial"]: run for run in offline_runs(tmp_path / "run") if run.history}
    assert set(found) == {0, 1, 2}
    for number, run in found.items():
        assert len(run.column("losses/overall_loss")) == len(lines(tmp_path / "run", number, "train"))


def test_a_missing_key_is_one_clear_message_before_any_training(
    tree: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setattr(wandb, "login", lambda **_: False)
    with pytest.raises(UserError, match="wandb login"):
        saesweep.run(tree, run_dir=tmp_path / "run")
    assert not (tmp_path / "run" / "trials").exists()
