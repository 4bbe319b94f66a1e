"""A whole sweep through `saesweep.run`: result, files, resume, determinism, failures."""

import json
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch

import saesweep
from saesweep.errors import UserError
from saesweep.events import BlockDone, RunEnded, TrialEnded, TrialStarted
from saesweep.worker import worker as worker_module
from tests.sweep.conftest import Finished
from tests.sweep.studies import snapshot


def test_a_sweep_exports_its_winner_and_says_so(finished: Finished) -> None:
    result, events = finished.result, finished.events
    assert (result.status, result.exit_code) == ("complete", 0)
    assert len(result.rows) == 10
    assert {row.architecture for row in result.rows} == {"topk", "batchtopk", "jumprelu", "standard"}
    assert all(row.status in ("complete", "pruned") for row in result.rows)
    best = finished.folder / "best"
    assert {p.name for p in best.iterdir()} == {
        "cfg.json",
        "checksums.json",
        "sae_weights.safetensors",
        "sparsity.safetensors",
        "runner_cfg.json",
        "experiment.yaml",
        "provenance.json",
    }
    provenance = json.loads((best / "provenance.json").read_text())
    assert provenance["trial"] == result.best
    assert provenance["test_metrics"]["explained_variance"] > 0.3
    front = {row.number for row in result.rows if row.on_front}
    assert {int(p.name[:4]) for p in (finished.folder / "pareto").iterdir()} == front
    ended = events[-1]
    assert isinstance(ended, RunEnded)
    assert "knee" in ended.notes[0]
    joined = {e.number: e.joined_at_tokens for e in events if isinstance(e, TrialStarted)}
    assert max(joined.values()) > 0  # slots are refilled while others train


def test_the_exported_sae_scores_what_the_leaderboard_says(tree: dict[str, Any], finished: Finished) -> None:
    from saesweep.activations import open_source
    from saesweep.experiment import load_experiment

    experiment = load_experiment(tree)
    source = open_source(experiment.base_run(), experiment.spec.evaluation, experiment.hook_names())
    for row in finished.result.rows:
        if row.status != "complete":
            continue
        sae = saesweep.load_sae_folder(finished.folder / "trials" / f"{row.number:04d}" / "sae")
        active = total = 0
        for x in source.select.batches(row.hook):
            active += int((sae.encode(x) != 0).sum())
            total += x.shape[0]
        assert active / total == pytest.approx(row.metrics["l0"], rel=1e-6)
        if "k" in row.sparsity:
            assert row.metrics["l0"] == pytest.approx(float(row.sparsity.split()[1]), rel=0.1)


def test_the_same_command_again_trains_nothing(tree: dict[str, Any], finished: Finished, tmp_path: Path) -> None:
    events: list[Any] = []
    again = saesweep.run(tree, run_dir=finished.copied_to(tmp_path / "run"), listeners=[events.append])
    assert again.status == "already complete"
    assert again.best == finished.result.best
    assert [type(e) for e in events] == [RunEnded]
    assert events[0].trained_tokens == 0


def test_more_trials_continue_a_finished_run(tree: dict[str, Any], finished: Finished, tmp_path: Path) -> None:
    tree["search"]["trials"] = 12
    more = saesweep.run(tree, run_dir=finished.copied_to(tmp_path / "run"))
    assert len(more.rows) == 12
    old = {r.number: r.metrics for r in finished.result.rows}
    assert all(old[r.number] == r.metrics for r in more.rows if r.number in old)


def test_twice_the_same_bit_for_bit(tree: dict[str, Any], finished: Finished, tmp_path: Path) -> None:
    saesweep.run(tree, run_dir=tmp_path / "again")
    assert snapshot(tmp_path / "again") == snapshot(finished.folder)


def test_another_seed_gives_another_study(tree: dict[str, Any], finished: Finished, tmp_path: Path) -> None:
    tree["base"]["seed"] = 7
    saesweep.run(tree, run_dir=tmp_path / "other")
    assert snapshot(tmp_path / "other") != snapshot(finished.folder)


@pytest.mark.parametrize(
    "after_blocks", [pytest.param(1, marks=pytest.mark.long), 4, pytest.param(9, marks=pytest.mark.long)]
)
def test_an_interrupted_run_resumes_as_if_nothing_happened(
    tree: dict[str, Any], finished: Finished, tmp_path: Path, after_blocks: int
) -> None:
    import signal

    blocks = 0

    def interrupt(event: Any) -> None:
        nonlocal blocks
        blocks += isinstance(event, BlockDone)
        if isinstance(event, BlockDone) and blocks == after_blocks:
            signal.raise_signal(signal.SIGINT)

    stopped = saesweep.run(tree, run_dir=tmp_path / "run", listeners=[interrupt])
    assert (stopped.status, stopped.exit_code) == ("interrupted", 130)
    resumed = saesweep.run(tree, run_dir=tmp_path / "run")
    assert resumed.status == "complete"
    assert snapshot(tmp_path / "run") == snapshot(finished.folder)


def test_a_nan_ends_its_trial_alone(tree: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = worker_module.Slot.__init__

    def poisoned(self: Any, **kwargs: Any) -> None:
        place(self, **kwargs)
        if kwargs["trial"] == 2:
            self.params["b_dec"].fill_(float("nan"))

    monkeypatch.setattr(worker_module.Slot, "__init__", poisoned)
    result = saesweep.run(tree, run_dir=tmp_path / "run")
    states = {row.number: row for row in result.rows}
    assert states[2].status == "failed"
    assert "NaN" in states[2].reason
    assert sum(row.status == "failed" for row in result.rows) == 1
    assert result.exit_code == 0
    told = json.loads((tmp_path / "run" / "trials" / "0002" / "trial.json").read_text())
    assert told["status"] == "failed"


def test_more_failures_than_allowed_exit_with_1(
    tree: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = worker_module.Slot.__init__

    def poisoned(self: Any, **kwargs: Any) -> None:
        place(self, **kwargs)
        if kwargs["trial"] in (1, 2):
            self.params["b_dec"].fill_(float("nan"))

    monkeypatch.setattr(worker_module.Slot, "__init__", poisoned)
    tree["search"]["max_failed"] = 1
    assert saesweep.run(tree, run_dir=tmp_path / "run").exit_code == 1


@pytest.mark.parametrize("sampler", ["tpe", "grid"])
def test_failed_trials_are_tried_again_beside_the_others(
    tree: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sampler: str
) -> None:
    """The first attempt at trial 2 fails, every attempt at trial 1 does."""
    place = worker_module.Slot.__init__
    poison = {1, 2}

    def poisoned(self: Any, **kwargs: Any) -> None:
        place(self, **kwargs)
        if kwargs["trial"] in poison or kwargs["trial"] == doomed:
            self.params["b_dec"].fill_(float("nan"))

    def note(event: Any) -> None:
        nonlocal doomed
        if isinstance(event, TrialEnded) and event.status == "failed":
            ended.append(event.number)
        if len(ended) == 2 and doomed < 0:
            doomed = 4  # 4 and 5 repeat 1 and 2

    doomed, ended = -1, list[int]()
    monkeypatch.setattr(worker_module.Slot, "__init__", poisoned)
    tree["search"] |= {"trials": 4, "sampler": sampler, "pruner": "none", "max_failed": 0}
    if sampler == "grid":
        tree["space"] = {"sae.architecture": {"choice": ["topk", "batchtopk"]}, "sae.k": {"choice": [2, 3]}}
        tree.pop("by_architecture", None)
    first = saesweep.run(tree, run_dir=tmp_path / "run", listeners=[note])
    assert (len(first.rows), first.exit_code) == (4, 1)  # nothing is tried again unless asked for
    tree["search"] |= {"retry_failed": 1, "tokens_budget": 10_240}  # one trial's, which were spent long ago
    for _ in range(2):
        forbidden = saesweep.run(tree, run_dir=tmp_path / "run", listeners=[note])
        assert len(forbidden.rows) == 4
        assert any("search.tokens_budget is used up" in note for note in forbidden.notes)
    del tree["search"]["tokens_budget"]
    result = saesweep.run(tree, run_dir=tmp_path / "run", listeners=[note])
    rows = {row.number: row for row in result.rows}
    assert {n: row.retry_of for n, row in rows.items()} == {0: None, 1: None, 2: None, 3: None, 4: 1, 5: 2}
    assert {n: row.status for n, row in rows.items()} == {
        **dict.fromkeys((0, 3, 5), "complete"),
        **dict.fromkeys((1, 2, 4), "failed"),
    }
    assert [rows[n].params for n in (4, 5)] == [rows[n].params for n in (1, 2)]
    assert result.exit_code == 1  # one of the settings has failed for good
    again = saesweep.run(tree, run_dir=tmp_path / "run")
    assert again.status == "already complete"
    doomed = 99
    tree["search"] |= {"retry_failed": 2}
    last = saesweep.run(tree, run_dir=tmp_path / "run")
    rows = {row.number: row for row in last.rows}
    assert (len(rows), rows[6].retry_of, rows[6].status, last.exit_code) == (7, 1, "complete", 0)


def test_a_run_directory_of_another_experiment_is_refused(tree: dict[str, Any], tmp_path: Path) -> None:
    tree["search"]["trials"] = 4
    saesweep.run(tree, run_dir=tmp_path / "run")
    before = (tmp_path / "run" / "study.db").read_bytes()
    tree["base"]["lr_decay_steps"] = "40%"
    with pytest.raises(UserError, match=r"base\.lr_decay_steps"):
        saesweep.run(tree, run_dir=tmp_path / "run")
    assert (tmp_path / "run" / "study.db").read_bytes() == before


def test_no_feasible_trial_is_said(tree: dict[str, Any], tmp_path: Path) -> None:
    tree["objective"] = {"maximize": "explained_variance", "subject_to": {"l0": {"max": 0.5}}}
    tree["search"]["trials"] = 4
    result = saesweep.run(tree, run_dir=tmp_path / "run")
    assert "no feasible trial" in result.notes[0]
    assert (tmp_path / "run" / "best" / "cfg.json").exists()


def test_an_empty_space_trains_once(tree: dict[str, Any], tmp_path: Path) -> None:
    tree["space"] = {}
    tree["by_architecture"] = {}
    tree["base"]["sae"] |= {"architecture": "topk", "k": 4}
    del tree["search"]["stratify"]
    tree["search"]["trials"] = 1
    result = saesweep.run(tree, run_dir=tmp_path / "run")
    assert [row.architecture for row in result.rows] == ["topk"]
    assert result.best == 0


def test_the_best_runs_again_alone_from_its_own_experiment_file(tree: dict[str, Any], tmp_path: Path) -> None:
    tree["search"]["trials"] = 4
    first = saesweep.run(tree, run_dir=tmp_path / "run")
    best = next(row for row in first.rows if row.number == first.best)
    # The same blocks: a BatchTopK threshold is calibrated on the batches of the last one.
    same_blocks = ["cohort.block_tokens=2560"]
    alone = saesweep.run(
        tmp_path / "run" / "best" / "experiment.yaml", run_dir=tmp_path / "alone", overrides=same_blocks
    )
    assert len(alone.rows) == 1
    if best.joined_at_tokens == 0:
        assert alone.rows[0].metrics == pytest.approx(best.metrics, rel=1e-9)


def test_the_best_is_a_base_for_another_experiment(tree: dict[str, Any], tmp_path: Path) -> None:
    tree["search"]["trials"] = 4
    first = saesweep.run(tree, run_dir=tmp_path / "run")
    best = next(row for row in first.rows if row.number == first.best)
    base = {"from_cfg": str(tmp_path / "run" / "best"), "model_name": None}
    second = saesweep.run({"name": "again", "base": base, "evaluation": tree["evaluation"]}, run_dir=tmp_path / "again")
    assert second.rows[0].architecture == best.architecture
    assert second.rows[0].sparsity == best.sparsity


def test_the_study_opens_in_plain_optuna(tree: dict[str, Any], tmp_path: Path) -> None:
    tree["search"]["trials"] = 4
    result = saesweep.run(tree, run_dir=tmp_path / "run")
    study = optuna.load_study(study_name="tiny", storage=f"sqlite:///{tmp_path}/run/study.db")
    assert len(study.trials) == 4
    complete = {r.number for r in result.rows if r.status == "complete"}
    assert {t.number for t in study.trials if t.state.name == "COMPLETE"} == complete


@pytest.mark.gpu
def test_a_sweep_on_cuda_with_autocast(tree: dict[str, Any], tmp_path: Path) -> None:
    assert torch.cuda.is_available(), "run with -m gpu only where there is a CUDA device"
    tree["base"] |= {"device": "cuda", "autocast": True}
    result = saesweep.run(tree, run_dir=tmp_path / "run")
    assert result.status == "complete"
    sae = saesweep.load_sae_folder(tmp_path / "run" / "best")
    assert sae.dtype == torch.float32
