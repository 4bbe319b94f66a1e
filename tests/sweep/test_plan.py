"""`plan`: streams, and times from a calibration."""

from pathlib import Path
from typing import Any

import pytest

from saesweep.cli import main
from saesweep.experiment import dump_yaml, load_experiment
from saesweep.planning import calibrate
from saesweep.planning.estimate import Work, seconds_of
from saesweep.planning.plan import plan
from saesweep.planning.planned import Calibration
from tests.models.tiny import WORDS, save_llama
from tests.reliability.conftest import few_trials


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "_SECONDS", 0.05)


def test_streams_are_grouped_by_model(tmp_path: Path) -> None:
    tree = few_trials()
    tree["base"] |= {"dataset_path": "some/text", "model_name": "org/alpha", "hook_name": "model.layers.0"}
    tree["space"]["context_size"] = {"choice": [16, 32]}
    tree["space"]["model_name"] = {"choice": ["org/alpha", "org/beta"]}
    tree["search"]["trials"] = 10
    made = plan(load_experiment(tree))
    assert [(s.label, s.trials) for s in made.streams] == [
        ("context_size 16, alpha", 3),
        ("context_size 32, alpha", 3),
        ("context_size 16, beta", 2),
        ("context_size 32, beta", 2),
    ]
    assert made.model_loads == 2
    assert [sample.params["model_name"] for sample in made.samples] == ["org/alpha"] * 3  # the first stream's trials
    text = "\n".join(made.lines())
    assert "4 activation streams, one after the other, 2 loads of a language model" in text
    assert "language model not counted; --calibrate measures both" in text


def test_a_calibration_gives_times_with_the_language_model(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    text = tmp_path / "text.txt"
    text.write_text("\n".join(" ".join(WORDS[i : i + 40]) for i in range(80)) * 4)
    tree = few_trials()
    tree["base"] |= {
        "model_name": str(save_llama(tmp_path / "model")),
        "dataset_path": str(text),
        "hook_name": "model.layers.0",
        "streaming": False,
        "context_size": 16,
        "buffer_tokens": 1024,
        "store_batch_size_prompts": 8,
    }
    del tree["base"]["sae"]["d_in"]  # the model is opened and says it
    tree["evaluation"] = {"select_tokens": 512, "test_tokens": 512}
    made = plan(load_experiment(tree), with_calibration=True)
    (measured,) = made.calibrations
    assert set(measured.step_seconds) == {"topk", "standard"}
    assert min(measured.model_tokens_per_second, *measured.step_seconds.values(), measured.splice_seconds) > 0
    assert made.seconds_full is not None
    assert made.seconds_pruned is not None
    assert made.seconds_pruned.total < made.seconds_full.total
    assert made.seconds_pruned.language_model > 0
    assert "with pruning: SAEs" in "\n".join(made.lines())


def test_the_estimate_adds_up() -> None:
    measured = Calibration("", 1000.0, {"topk": 0.1, "standard": 0.3}, 2.0, 5.0, 7.0)
    tree = few_trials()  # batches of 256, the default objective: L0 and delta_ce, so that rungs run the model
    found = seconds_of(
        load_experiment(tree), Work(sae_tokens=51_200, at_rungs=4, at_end=2, streamed_tokens=25_600), measured
    )
    assert found.sae == pytest.approx(200 * 0.2)
    assert found.language_model == pytest.approx(25.6)
    assert found.measuring == pytest.approx(4 * (2 + 5) + 2 * (2 + 5))
    assert found.start_up == 7.0
    assert found.total == pytest.approx(40 + 25.6 + 42 + 7)


def test_a_model_that_cannot_be_had_is_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree: dict[str, Any] = few_trials()
    tree["base"] |= {"model_name": str(tmp_path / "nowhere"), "dataset_path": "builtin:python-docs"}
    (tmp_path / "e.yaml").write_text(dump_yaml(tree))
    assert main(["plan", str(tmp_path / "e.yaml"), "--calibrate"]) == 2
    error = capsys.readouterr().err
    assert "nowhere" in error
    assert "Traceback" not in error
