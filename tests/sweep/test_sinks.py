"""A model whose first token holds nearly all variance: said before training and by the plan, and measured without it."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import saesweep
from saesweep.activations import open_source
from saesweep.events import RunStarted, TrialStarted
from saesweep.experiment import load_experiment
from saesweep.planning import calibrate
from saesweep.planning.plan import plan
from tests.models.tiny import BOS, save_llama

HOOK = "model.layers.1"


@pytest.fixture(scope="module")
def with_sink(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama with a huge embedding of BOS, which stays in the residual stream."""
    folder = save_llama(tmp_path_factory.mktemp("models") / "sink")
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.get_input_embeddings().weight[BOS] *= 500
    model.save_pretrained(folder)
    text = "\n".join(" ".join(f"w{(7 * line + word * word) % 120}" for word in range(40)) for line in range(300))
    (folder / "text.txt").write_text(text)
    return folder


@pytest.fixture
def tree(with_sink: Path) -> dict[str, Any]:
    return {
        "name": "sinks",
        "base": {
            "model_name": str(with_sink),
            "dataset_path": str(with_sink / "text.txt"),
            "hook_name": HOOK,
            "context_size": 48,
            "sequence_separator_token": None,
            "training_tokens": 4096,
            "train_batch_size_tokens": 256,
            "store_batch_size_prompts": 8,
            "lr": 3e-3,
            "device": "cpu",
            "sae": {"architecture": "topk", "k": 4, "d_in": 32, "d_sae": 64},
        },
        "space": {},
        "evaluation": {"select_tokens": 960, "test_tokens": 960},
    }


def test_sinks_are_said_before_training_and_measured_apart(tree: dict[str, Any], tmp_path: Path) -> None:
    events: list[Any] = []
    result = saesweep.run(tree, run_dir=tmp_path / "run", listeners=[events.append])
    (started,) = [event for event in events if isinstance(event, RunStarted)]
    (said,) = [note for note in started.notes if "attention sinks" in note]
    found = re.search(
        rf"attention sinks at {HOOK}: (\d+) of ([\d,]+) tokens \(2\.1%\) hold (\d+)% of the variance", said
    )
    assert found is not None, said
    assert int(found[2].replace(",", "")) == 48 * int(found[1])
    assert int(found[3]) > 90
    assert "all of them at position 0 of the context" in said
    assert "base.max_activation_norm_multiple: 10, or base.exclude_special_tokens: true" in said
    assert events.index(started) < min(i for i, event in enumerate(events) if isinstance(event, TrialStarted))
    assert "explained_variance_no_sinks" in started.metrics
    metrics = result.rows[0].metrics
    experiment = load_experiment(tree)
    source = open_source(experiment.base_run(), experiment.spec.evaluation, [HOOK])
    x_ND = torch.cat(list(source.select.batches(HOOK)))
    sae = saesweep.load_sae_folder(tmp_path / "run" / "trials" / "0000" / "sae")
    for name, kept_ND in (
        ("explained_variance", x_ND),
        ("explained_variance_no_sinks", x_ND[x_ND.norm(dim=1) < 10 * x_ND.norm(dim=1).median()]),
    ):
        error = (kept_ND - sae(kept_ND)).double().square().sum()
        variance = (kept_ND - kept_ND.mean(0)).double().square().sum()
        assert metrics[name] == pytest.approx(1 - float(error / variance), rel=1e-3, abs=1e-4)
    source.close()
    assert metrics["explained_variance_no_sinks_stderr"] > 0


@pytest.mark.parametrize("setting", [{"max_activation_norm_multiple": 10}, {"exclude_special_tokens": True}])
def test_the_advised_setting_ends_the_warning(tree: dict[str, Any], tmp_path: Path, setting: dict[str, Any]) -> None:
    tree["base"] |= setting
    events: list[Any] = []
    result = saesweep.run(tree, run_dir=tmp_path / "run", listeners=[events.append])
    (started,) = [event for event in events if isinstance(event, RunStarted)]
    assert not [note for note in started.notes if "attention sinks" in note]
    assert "explained_variance_no_sinks" not in started.metrics
    metrics = result.rows[0].metrics
    assert metrics["explained_variance_no_sinks"] == metrics["explained_variance"]


def test_a_calibrated_plan_says_so(tree: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "_SECONDS", 0.05)
    found = plan(load_experiment(tree), with_calibration=True)
    assert any(f"attention sinks at {HOOK}" in warning for warning in found.warnings)
    assert any("attention sinks" in line for line in found.lines())


def test_an_objective_can_leave_sinks_out(tree: dict[str, Any], tmp_path: Path) -> None:
    tree["objective"] = {"maximize": "explained_variance_no_sinks"}
    result = saesweep.run(tree, run_dir=tmp_path / "run")
    assert result.rows[0].status == "complete"
