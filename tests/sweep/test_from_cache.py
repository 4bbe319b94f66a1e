"""A sweep from cached activations: the live sweep's trials and metrics, bit for bit, without the language model."""

import json
from pathlib import Path
from typing import Any

import pytest

import saesweep
from saesweep.activations import open as open_module
from saesweep.cli import main
from saesweep.engines.local import LocalEngine
from saesweep.errors import UserError
from saesweep.events import BlockDone
from saesweep.experiment import Experiment, dump_yaml
from tests.activations.cache.runs import save_texts
from tests.models.tiny import save_llama


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("from-cache")
    save_llama(root / "model")
    save_texts(root / "texts.jsonl")
    return root


@pytest.fixture(scope="module")
def live_tree(folder: Path) -> dict[str, Any]:
    return {
        "name": "cached",
        "base": {
            "model_name": str(folder / "model"),
            "hook_name": "model.layers.1",
            "dataset_path": str(folder / "texts.jsonl"),
            "streaming": False,
            "context_size": 16,
            "exclude_special_tokens": True,
            "training_tokens": 4096,
            "train_batch_size_tokens": 128,
            "store_batch_size_prompts": 8,
            "buffer_tokens": 1024,
            "lr": 1e-3,
            "device": "cpu",
            "sae": {"d_in": 32, "d_sae": 64, "normalize_activations": "expected_average_only_in"},
        },
        "space": {
            "hook_name": {"choice": ["model.layers.0", "model.layers.1"]},
            "sae.architecture": {"choice": ["topk", "batchtopk"]},
            "sae.k": {"int": [2, 16]},
        },
        "objective": {"maximize": "explained_variance"},
        "evaluation": {"select_tokens": 512, "test_tokens": 512},
        "search": {"trials": 6, "rungs": ["50%"], "min_rung_steps": 5, "min_probability": 0.3},
        "cohort": {"size": 3, "checkpoint_seconds": 0, "kernels": "reference"},
    }


@pytest.fixture(scope="module")
def live(live_tree: dict[str, Any], folder: Path) -> Any:
    return saesweep.run(live_tree, run_dir=folder / "live")


@pytest.fixture(scope="module")
def cached_tree(live_tree: dict[str, Any], live: Any, folder: Path) -> dict[str, Any]:
    """The same experiment, from a cache as long as what the live sweep streamed."""
    (folder / "live.yaml").write_text(dump_yaml(live_tree))
    streamed = json.loads((folder / "live" / "leaderboard.json").read_text())["stream_tokens"]
    assert (
        main(["cache-activations", str(folder / "live.yaml"), "--to", str(folder / "rows"), "--tokens", str(streamed)])
        == 0
    )
    extra = {"use_cached_activations": True, "cached_activations_path": str(folder / "rows")}
    return {**live_tree, "base": {**live_tree["base"], **extra}}


def weights(run_dir: Path) -> dict[str, bytes]:
    return {p.parent.parent.name: p.read_bytes() for p in run_dir.glob("trials/*/sae/sae_weights.safetensors")}


def forbid(*_: Any, **__: Any) -> None:
    raise AssertionError("the language model was loaded")


def test_same_trials_metrics_and_weights_without_the_model(
    live: Any, cached_tree: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_module, "load_model", forbid)
    cached = saesweep.run(cached_tree, run_dir=folder / "cached")
    theirs = {row.number: row for row in live.rows}
    assert len(cached.rows) == 6
    for row in cached.rows:
        assert (row.status, row.tokens) == (theirs[row.number].status, theirs[row.number].tokens)
        assert row.metrics
        assert row.metrics == {name: theirs[row.number].metrics[name] for name in row.metrics}
    assert weights(folder / "cached") == weights(folder / "live")
    assert cached.best == live.best
    assert cached.test_metrics["explained_variance"] == live.test_metrics["explained_variance"]


class TwoWorkers(LocalEngine):
    """Two workers in this process, which train in turn."""

    def devices(self, experiment: Experiment) -> tuple[str, ...]:
        return ("", "")


def test_two_workers_train_from_one_cache(
    live: Any, cached_tree: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither runs the model, both read the same rows: what began with the stream measures what it did in the live run."""
    monkeypatch.setattr(open_module, "load_model", forbid)
    before = {path.name: path.read_bytes() for path in (folder / "rows").iterdir() if path.is_file()}
    result = saesweep.run(cached_tree, run_dir=folder / "two", engine=TwoWorkers())
    assert result.status == "complete"
    assert {row.joined_at_tokens for row in result.rows} == {0}  # three in each
    assert [first_measured(folder / "two", number) for number in range(3)] == [
        first_measured(folder / "live", number) for number in range(3)
    ]
    assert before == {path.name: path.read_bytes() for path in (folder / "rows").iterdir() if path.is_file()}


def first_measured(run_dir: Path, number: int) -> dict[str, Any]:
    lines = (run_dir / "trials" / f"{number:04d}" / "metrics.jsonl").read_text().splitlines()
    line = next(line for line in map(json.loads, lines) if line["kind"] == "select")
    return {name: line[name] for name in ("tokens", "l0", "mse", "explained_variance")}


def test_cross_entropy_is_measured_where_it_is_asked_for(
    live_tree: dict[str, Any], cached_tree: dict[str, Any], folder: Path
) -> None:
    objective = {"minimize": "delta_ce"}
    live = saesweep.run({**live_tree, "objective": objective}, run_dir=folder / "live-ce")
    cached = saesweep.run({**cached_tree, "objective": objective}, run_dir=folder / "cached-ce")
    assert {r.number: r.metrics for r in cached.rows} == {r.number: r.metrics for r in live.rows}
    assert all("delta_ce" in row.metrics for row in cached.rows)


def test_an_interrupted_run_resumes_from_the_cache(live: Any, cached_tree: dict[str, Any], folder: Path) -> None:
    import signal

    blocks = 0

    def interrupt(event: Any) -> None:
        nonlocal blocks
        blocks += isinstance(event, BlockDone)
        if isinstance(event, BlockDone) and blocks == 3:
            signal.raise_signal(signal.SIGINT)

    stopped = saesweep.run(cached_tree, run_dir=folder / "stopped", listeners=[interrupt])
    assert stopped.status == "interrupted"
    resumed = saesweep.run(cached_tree, run_dir=folder / "stopped")
    assert resumed.status == "complete"
    assert weights(folder / "stopped") == weights(folder / "live")


def test_without_an_objective_the_model_is_not_loaded(
    cached_tree: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_module, "load_model", forbid)
    tree = {key: value for key, value in cached_tree.items() if key != "objective"}
    result = saesweep.run({**tree, "search": {"trials": 1}}, run_dir=folder / "default")
    assert set(result.rows[0].metrics) >= {"l0", "explained_variance"}


def test_plan_reads_no_model_either(cached_tree: dict[str, Any]) -> None:
    from saesweep.experiment import load_experiment
    from saesweep.planning.plan import plan

    experiment = load_experiment(cached_tree)
    assert not experiment.reads_language_model()
    assert plan(experiment).trials == 6


def test_a_mismatch_ends_the_run_before_it_begins(cached_tree: dict[str, Any], tmp_path: Path) -> None:
    tree = {**cached_tree, "base": {**cached_tree["base"], "context_size": 8}}
    with pytest.raises(UserError, match="context_size: 16 in the cache, 8 in this run"):
        saesweep.run(tree, run_dir=tmp_path / "run")
