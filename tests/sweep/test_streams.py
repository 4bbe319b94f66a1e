"""Searching over stream-level parameters: one stream open at a time, one study, one leaderboard."""

import json
import random
import signal
import tempfile
import weakref
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import saesweep
from saesweep.activations import open as opening
from saesweep.cohort import Cohort
from saesweep.driver import phase
from saesweep.errors import ExperimentError, UserError
from saesweep.events import BlockDone
from saesweep.experiment import load_experiment, streams_of
from saesweep.worker import worker as worker_module
from tests.models.tiny import WORDS, save_llama
from tests.reliability.conftest import few_trials
from tests.sweep.studies import snapshot


def two_streams() -> dict[str, Any]:
    """Two streams of synthetic activations that differ in the batch, four trials each, with rungs."""
    tree = few_trials()
    tree["space"]["train_batch_size_tokens"] = {"choice": [256, 512]}
    tree["objective"] = {"maximize": "explained_variance", "subject_to": {"l0": {"max": 40}}}
    tree["search"] = {
        "trials": 8,
        "rungs": ["25%"],
        "min_rung_steps": 5,
        "min_probability": 0.3,
        "baselines": [{"sae.architecture": "topk", "sae.k": 8}],
    }
    return tree


@pytest.fixture
def tree() -> dict[str, Any]:
    return two_streams()


@pytest.fixture(scope="module")
def whole() -> Iterator[tuple[saesweep.Result, Path]]:
    """An undisturbed run, and its directory."""
    with tempfile.TemporaryDirectory() as folder:
        yield saesweep.run(two_streams(), run_dir=Path(folder) / "run"), Path(folder) / "run"


def interrupt_at(tree: dict[str, Any], run_dir: Path, block: int) -> None:
    blocks = 0

    def press(event: Any) -> None:
        nonlocal blocks
        blocks += isinstance(event, BlockDone)
        if isinstance(event, BlockDone) and blocks == block:
            signal.raise_signal(signal.SIGINT)

    assert saesweep.run(tree, run_dir=run_dir, listeners=[press]).status == "interrupted"


def test_streams_share_the_trials_equally_and_are_ranked_together(
    tree: dict[str, Any], whole: tuple[saesweep.Result, Path]
) -> None:
    result, run_dir = whole
    assert result.status == "complete"
    by_number = sorted(result.rows, key=lambda row: row.number)
    labels = ["train_batch_size_tokens 256"] * 4 + ["train_batch_size_tokens 512"] * 4
    assert [row.stream for row in by_number] == labels
    assert [row.params["train_batch_size_tokens"] for row in by_number] == [256] * 4 + [512] * 4
    # A baseline is the first trial of each stream.
    assert [row.number for row in by_number if row.is_baseline] == [0, 4]
    assert [(row.architecture, row.params["sae.k"]) for row in by_number if row.is_baseline] == [("topk", 8)] * 2
    # The values are on one scale: one ranking over both streams, and its first is exported and measured on its own test.
    ranked = [row for row in result.rows if row.rank is not None]
    assert [row.rank for row in ranked] == list(range(1, len(ranked) + 1))
    assert result.best == result.rows[0].number
    winners = [json.loads(file.read_text()) for file in sorted((run_dir / "streams").glob("*/winner.json"))]
    assert len(winners) == 2
    assert result.test_metrics == next(w["test_metrics"] for w in winners if w["best"] == result.best)
    config = json.loads((run_dir / "best/runner_cfg.json").read_text())
    assert config["train_batch_size_tokens"] == result.rows[0].params["train_batch_size_tokens"]
    assert saesweep.run(tree, run_dir=run_dir).status == "already complete"


@pytest.mark.parametrize("block", [3, 12])
def test_an_interrupted_search_over_streams_equals_an_undisturbed_one(
    tree: dict[str, Any], tmp_path: Path, block: int, whole: tuple[saesweep.Result, Path]
) -> None:
    interrupt_at(tree, tmp_path / "run", block)
    assert saesweep.run(tree, run_dir=tmp_path / "run").status == "complete"
    assert snapshot(tmp_path / "run") == snapshot(whole[1])


@pytest.mark.parametrize("call", [1, 2])
def test_a_kill_around_the_end_of_a_stream_changes_nothing(
    tree: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: int,
    whole: tuple[saesweep.Result, Path],
) -> None:
    calls = 0
    finish_stream = phase.finish_stream

    def killed(*args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            raise KeyboardInterrupt
        finish_stream(*args)

    monkeypatch.setattr(phase, "finish_stream", killed)
    with pytest.raises(KeyboardInterrupt):
        saesweep.run(tree, run_dir=tmp_path / "run")
    assert saesweep.run(tree, run_dir=tmp_path / "run").status == "complete"
    assert snapshot(tmp_path / "run") == snapshot(whole[1])


@pytest.mark.parametrize("block", [None, 5])
def test_a_trial_that_is_tried_again_takes_nothing_of_the_share_of_a_stream(
    tree: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int | None
) -> None:
    place = worker_module.Slot.__init__

    def poisoned(self: Any, **kwargs: Any) -> None:
        place(self, **kwargs)
        if kwargs["trial"] == 0:
            self.params["b_dec"].fill_(float("nan"))

    monkeypatch.setattr(worker_module.Slot, "__init__", poisoned)
    tree["space"]["train_batch_size_tokens"] = {"choice": [128, 256, 512]}
    tree["search"] |= {"trials": 9, "retry_failed": 1, "pruner": "none"}
    tree["cohort"] |= {"size": 1}
    run = tmp_path / "run"
    if block is not None:  # in the middle of the first stream, after its trial was tried again
        interrupt_at(tree, run, block)
    result = saesweep.run(tree, run_dir=run)
    assert [row.number for row in result.rows if row.retry_of == 0] == [1]
    own = Counter(row.stream for row in result.rows if row.retry_of is None)
    assert own == {f"train_batch_size_tokens {size}": 3 for size in (128, 256, 512)}


@pytest.mark.parametrize("others", [1, 2])
def test_a_stream_that_was_left_is_opened_again_for_its_failed_trials(
    tree: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: int
) -> None:
    place = worker_module.Slot.__init__
    poison = {1, 3}  # one of the first stream, and where there are two streams one of the second

    def poisoned(self: Any, **kwargs: Any) -> None:
        place(self, **kwargs)
        if kwargs["trial"] in poison:
            self.params["b_dec"].fill_(float("nan"))

    monkeypatch.setattr(worker_module.Slot, "__init__", poisoned)
    tree["space"]["train_batch_size_tokens"] = {"choice": [128, 256, 512][: 1 + others]}
    tree["search"] |= {"trials": 2 * (1 + others), "pruner": "none"}
    run = tmp_path / "run"
    first = saesweep.run(tree, run_dir=run)
    failed = {row.number: row for row in first.rows if row.status == "failed"}
    assert failed.keys() == poison
    ends = {row.number: (row.tokens, row.metrics) for row in first.rows}
    poison = {4 if others == 1 else 6}  # the first further attempt fails as well
    tree["search"]["retry_failed"] = 2
    result = saesweep.run(tree, run_dir=run)
    again = {row.retry_of: row for row in result.rows if row.retry_of is not None and row.status == "complete"}
    assert again.keys() == failed.keys()
    assert all(again[n].params == failed[n].params and again[n].stream == failed[n].stream for n in failed)
    assert sum(row.retry_of is not None for row in result.rows) == 3
    assert {row.number: (row.tokens, row.metrics) for row in result.rows if row.number in ends} == ends
    for file in (run / "streams").glob("*/winner.json"):
        label = next(s.label for s in streams_of(load_experiment(tree)) if s.folder == file.parent.name)
        assert json.loads(file.read_text())["trials"] == sum(row.stream == label for row in result.rows)
    assert saesweep.run(tree, run_dir=run).status == "already complete"


def test_more_trials_are_added_to_every_stream(tree: dict[str, Any], tmp_path: Path) -> None:
    tree["search"]["trials"] = 5
    first = saesweep.run(tree, run_dir=tmp_path / "run")
    assert [row.stream[-3:] for row in sorted(first.rows, key=lambda r: r.number)] == ["256"] * 3 + ["512"] * 2
    tree["search"]["trials"] = 8
    again = saesweep.run(tree, run_dir=tmp_path / "run")
    rows = sorted(again.rows, key=lambda row: row.number)
    # The stream that was open last comes first: one change of streams instead of two.
    assert [row.stream[-3:] for row in rows] == ["256"] * 3 + ["512"] * 4 + ["256"]
    kept = {row.number: row for row in first.rows}
    assert all(row.params == kept[row.number].params for row in rows[:5])
    assert all(row.metrics == kept[row.number].metrics for row in rows[:5] if row.status == "complete")
    assert [row.number for row in rows if row.is_baseline] == [0, 3]


def test_fewer_trials_than_planned_are_shared_anew(tree: dict[str, Any], tmp_path: Path) -> None:
    interrupt_at(tree, tmp_path / "run", 1)
    asked = len(json.loads((tmp_path / "run" / "leaderboard.json").read_text())["rows"])
    assert asked == 3
    tree["search"]["trials"] = 4
    result = saesweep.run(tree, run_dir=tmp_path / "run")
    assert result.status == "complete"
    # The stream that was open keeps its three, one more than its share; the other gets what is left.
    assert [row.stream[-3:] for row in sorted(result.rows, key=lambda row: row.number)] == ["256"] * 3 + ["512"]
    tree["search"]["trials"] = 8
    rows = sorted(saesweep.run(tree, run_dir=tmp_path / "run").rows, key=lambda row: row.number)
    assert [row.stream[-3:] for row in rows] == ["256"] * 3 + ["512"] * 4 + ["256"]


def test_fewer_trials_than_streams_leave_some_without(tree: dict[str, Any], tmp_path: Path) -> None:
    tree["search"]["trials"] = 1
    result = saesweep.run(tree, run_dir=tmp_path / "run")
    assert [row.stream[-3:] for row in result.rows] == ["256"]
    assert any("no trial ran there" in note for note in result.notes)


def test_a_tokens_budget_is_shared_by_the_streams(tree: dict[str, Any], tmp_path: Path) -> None:
    tree["search"] |= {"tokens_budget": 42_000, "pruner": "none"}  # two full trials of 10,240 tokens each
    result = saesweep.run(tree, run_dir=tmp_path / "run")
    assert [row.stream[-3:] for row in sorted(result.rows, key=lambda r: r.number)] == ["256"] * 2 + ["512"] * 2
    assert "search.tokens_budget is used up" in result.notes[0]


def test_a_grid_and_a_fixed_list_are_run_stream_by_stream(tree: dict[str, Any], tmp_path: Path) -> None:
    tree["space"] = {
        "train_batch_size_tokens": {"choice": [256, 512]},
        "sae.architecture": {"choice": ["topk"]},
        "sae.k": {"choice": [2, 8]},
        "lr": {"choice": [3e-3, 1e-2], "when": {"train_batch_size_tokens": 512}},
    }
    tree["search"] = {"sampler": "grid", "pruner": "none"}
    result = saesweep.run(tree, run_dir=tmp_path / "grid")
    found = [(row.params["train_batch_size_tokens"], row.params["sae.k"], row.params.get("lr")) for row in result.rows]
    assert sorted(found, key=str) == [
        (256, 2, None),
        (256, 8, None),
        (512, 2, 0.003),
        (512, 2, 0.01),
        (512, 8, 0.003),
        (512, 8, 0.01),
    ]
    fixed = [{"train_batch_size_tokens": b, "sae.architecture": "topk", "sae.k": k} for b, k in ((512, 2), (256, 8))]
    fixed[0]["lr"] = 3e-3
    tree["search"] = {"sampler": "fixed", "fixed": fixed, "pruner": "none"}
    listed = sorted(saesweep.run(tree, run_dir=tmp_path / "fixed").rows, key=lambda row: row.number)
    assert [dict(row.params) for row in listed] == [fixed[1], fixed[0]]


def test_memory_that_runs_out_on_one_stream_shrinks_its_cohort_only(
    tree: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_step = Cohort.train_step

    def crowded(self: Cohort, batch: Any) -> None:
        if next(iter(batch.values())).shape[0] == 512 and len(list(self.occupied())) > 1:
            raise MemoryError
        train_step(self, batch)

    monkeypatch.setattr(Cohort, "train_step", crowded)
    result = saesweep.run(tree, run_dir=tmp_path / "run")
    assert result.status == "complete"
    assert sorted(row.number for row in result.rows) == list(range(8))
    slots = [
        json.loads(file.read_text())["slots"] for file in sorted((tmp_path / "run/streams").glob("*/choices.json"))
    ]
    assert slots == [3, 1]


# ---------------------------------------------------------------- models and datasets


@pytest.fixture
def models(tmp_path: Path) -> dict[str, Any]:
    """Two random Llamas on two context sizes: four streams on two models."""
    rng = random.Random(0)
    text = tmp_path / "text.txt"
    text.write_text("\n".join(" ".join(rng.choices(WORDS, k=60)) for _ in range(300)))
    paths = []
    for name in ("alpha", "beta"):
        (tmp_path / name).mkdir()
        paths.append(str(save_llama(tmp_path / name)))
    return {
        "name": "two-models",
        "base": {
            "model_name": paths[0],
            "hook_name": "model.layers.0",
            "dataset_path": str(text),
            "streaming": False,
            "training_tokens": 2048,
            "train_batch_size_tokens": 128,
            "buffer_tokens": 1024,
            "store_batch_size_prompts": 8,
            "device": "cpu",
            "sae": {"architecture": "topk", "d_sae": 64, "k": 4},
        },
        "space": {
            "context_size": {"choice": [16, 32]},
            "model_name": {"choice": paths},
            "hook_name": [
                {"choice": ["model.layers.0"], "when": {"model_name": paths[0]}},
                {"choice": ["model.layers.1"], "when": {"model_name": paths[1]}},
            ],
            "sae.k": {"int": [2, 16]},
        },
        "objective": {"minimize": "delta_ce"},
        "evaluation": {"select_tokens": 512, "test_tokens": 512},
        "search": {"trials": 8, "pruner": "none"},
        "cohort": {"size": 2, "checkpoint_seconds": 0},
    }


def test_each_model_is_loaded_once_and_never_two_at_a_time(
    models: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[weakref.ref[Any]] = []
    max_at_once = 0
    load_model = opening.load_model

    def counted(run: Any) -> Any:
        nonlocal max_at_once
        model = load_model(run)
        loaded.append(weakref.ref(model.model))
        max_at_once = max(max_at_once, sum(ref() is not None for ref in loaded))
        return model

    monkeypatch.setattr(opening, "load_model", counted)
    result = saesweep.run(models, run_dir=tmp_path / "run")
    assert (len(loaded), max_at_once) == (2, 1)  # four streams, two models
    by_number = sorted(result.rows, key=lambda row: row.number)
    assert [row.stream for row in by_number[::2]] == [
        "context_size 16, alpha",
        "context_size 32, alpha",
        "context_size 16, beta",
        "context_size 32, beta",
    ]
    assert {(row.stream.split()[-1], row.hook) for row in result.rows} == {
        ("alpha", "model.layers.0"),
        ("beta", "model.layers.1"),
    }


def test_other_models_are_shown_and_not_compared(models: dict[str, Any], tmp_path: Path) -> None:
    models["search"]["confirm"] = {"top": 1, "replicates": 1, "training_tokens": "2x"}
    result = saesweep.run(models, run_dir=tmp_path / "run")
    assert [row.rank for row in result.rows] == [1, 2] * 4  # within each stream
    assert any("not comparable" in note or "within a stream" in note for note in result.notes)
    board = json.loads((tmp_path / "run/leaderboard.json").read_text())
    assert [row["stream"] for row in board["confirm"]["rows"]] == list(dict.fromkeys(row.stream for row in result.rows))
    assert result.best == result.rows[0].number
    folders = sorted((tmp_path / "run/streams").iterdir())
    assert len(folders) == 4
    for folder in folders:
        config = json.loads((folder / "best/runner_cfg.json").read_text())
        assert config["model_name"].rpartition("/")[2] in folder.name
        assert str(config["context_size"]) in folder.name
        assert config["training_tokens"] == 4096


def test_every_stream_is_checked_before_anything_trains(models: dict[str, Any], tmp_path: Path) -> None:
    models["space"]["hook_name"][1]["choice"] = ["model.layers.9"]
    with pytest.raises(UserError, match=r"context_size 16, beta: .*model\.layers\.9"):
        saesweep.run(models, run_dir=tmp_path / "run")
    assert not (tmp_path / "run/study.db").exists()


def test_what_cannot_be_searched_together_is_refused(tree: dict[str, Any]) -> None:
    tree["space"]["exclude_special_tokens"] = {"choice": [True, False]}
    tree["search"] |= {"patience": 3, "stratify": "train_batch_size_tokens"}
    tree["evaluation"]["references"] = ["somewhere"]
    with pytest.raises(ExperimentError) as caught:
        load_experiment(tree)
    assert {problem.path for problem in caught.value.problems} == {
        "search.patience",
        "search.stratify",
        "evaluation.references",
    }


def test_a_stream_s_experiment_has_its_settings_and_its_own_space(models: dict[str, Any]) -> None:
    streams = streams_of(load_experiment(models))
    assert [stream.experiment.hook_names() for stream in streams[::2]] == [("model.layers.0",), ("model.layers.1",)]
    assert [stream.experiment.base_run().context_size for stream in streams] == [16, 32, 16, 32]
    assert {p.path for p in streams[0].experiment.parameters()} == {"hook_name", "sae.k"}
