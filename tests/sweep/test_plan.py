"""`plan`: streams, and times from a calibration."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from saesweep.cli import main
from saesweep.experiment import dump_yaml, load_experiment
from saesweep.planning import calibrate
from saesweep.planning.estimate import Work, seconds_of
from saesweep.planning.plan import plan
from saesweep.planning.planned import Calibration
from saesweep.planning.probing import probes_line, probes_seconds
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
    assert made.measuring_share is made.peak_bytes is None
    assert "measuring: its share depends on the model, which is not on this machine" in text


@pytest.mark.parametrize(("devices", "says"), [("auto", None), ("cpu x 1", None), ("cpu x 3", "; 3 share")])
def test_several_workers_are_not_planned_in_silence(devices: str, says: str | None) -> None:
    tree = few_trials()
    tree["cohort"]["devices"] = devices
    warnings = [text for text in plan(load_experiment(tree)).warnings if text.startswith("cohort.devices")]
    assert len(warnings) == (says is not None)
    assert says is None or says in warnings[0]


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


def on_a_model_at_hand(folder: Path) -> dict[str, Any]:
    """Return a sweep on a model in a folder, whose configuration says how wide it is."""
    folder.mkdir()
    save_llama(folder)
    tree = few_trials()
    tree["base"] |= {
        "model_name": str(folder),
        "dataset_path": "some/text",
        "hook_name": "model.layers.0",
        "context_size": 16,
        "buffer_tokens": 1024,
    }
    del tree["base"]["sae"]["d_in"]
    return tree


def test_a_model_at_hand_gives_widths_the_share_of_measuring_and_the_peak(tmp_path: Path) -> None:
    """The width of a folder's hook used to be asked for; nothing is downloaded and no weights are read."""
    tree = on_a_model_at_hand(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"nobody reads this")
    made = plan(load_experiment(tree))
    assert made.measuring_share is not None
    assert 0 < made.measuring_share < 1
    assert made.model_bytes is not None
    assert made.peak_bytes is not None
    assert made.peak_bytes > made.model_bytes + made.slots * made.slot_bytes + made.measuring_bytes // 10
    text = "\n".join(made.lines())
    assert "peak of the whole process: about" in text
    assert (
        f"measuring: about {100 * made.measuring_share:.0f}% of the time with pruning, by the number of operations"
        in text
    )
    tree["evaluation"] = {"select_tokens": 100_000, "test_tokens": 100_000, "ce_tokens": 100_000, "rung_share": 1.0}
    more = plan(load_experiment(tree)).measuring_share
    assert more is not None
    assert more > made.measuring_share


def test_probes_are_counted_without_a_calibration(tmp_path: Path) -> None:
    tree = on_a_model_at_hand(tmp_path / "model")
    without = plan(load_experiment(tree))
    assert without.probes == ""
    assert "probes" not in "\n".join(without.lines())
    tasks = [{"name": name, "dataset_path": f"some/{name}"} for name in ("sentiment", "topic")]
    tree["evaluation"] = {**tree.get("evaluation", {}), "probes": {"tasks": tasks}}
    experiment = load_experiment(tree)
    with_probes = plan(experiment)
    assert with_probes.measuring_share is not None
    assert without.measuring_share is not None
    assert with_probes.measuring_share > without.measuring_share
    text = "\n".join(with_probes.lines())
    assert (
        "s for each SAE that finishes, as if of 2 tasks of two classes, 4,096 texts; --calibrate measures them" in text
    )

    spec, runs = experiment.spec.evaluation.probes, plan_runs(experiment)
    encoding = 2 * 4096 * max(run.sae.d_in * run.sae.d_sae for run in runs)
    regressions = probes_seconds(spec, runs, 1e30)
    assert regressions > 0
    assert probes_seconds(spec, runs, encoding) == pytest.approx(1 + regressions)
    mean = spec.model_copy(update={"pooling": "mean"})
    assert probes_seconds(mean, runs, encoding) == pytest.approx(16 + regressions)  # contexts are shorter than texts
    assert "4,096 texts of 16 tokens" in probes_line(mean, runs, 1.0)


def plan_runs(experiment: Any) -> list[Any]:
    """Return the widest run of each architecture, with the model's width."""
    runs = [run for name in experiment.architectures for run in experiment.corner_runs(name)]
    return [run.model_copy(update={"sae": run.sae.model_copy(update={"d_in": 16})}) for run in runs]


def test_the_estimate_adds_up() -> None:
    measured = Calibration("", 1000.0, {"topk": 0.1, "standard": 0.3}, 2.0, 5.0, 7.0)
    tree = few_trials()  # batches of 256, the default objective: L0 and delta_ce, so that rungs run the model
    found = seconds_of(
        load_experiment(tree), Work(sae_tokens=51_200, at_rungs=4, at_end=2, streamed_tokens=25_600), measured
    )
    assert found.sae == pytest.approx(200 * 0.2)
    assert found.language_model == pytest.approx(25.6)
    # At rungs and ends on `select`, whose 1,024 tokens are the least that a rung takes; the winner on `test`, clean and ablated too.
    assert found.measuring == pytest.approx(4 * (2 + 5) + 2 * (2 + 5) + (2 + 3 * 5))
    assert found.start_up == 7.0
    assert found.total == pytest.approx(40 + 25.6 + 59 + 7)
    assert found.measuring_share == pytest.approx(59 / 131.6)
    work = Work(sae_tokens=51_200, at_rungs=4, at_end=2, streamed_tokens=25_600)
    probed = seconds_of(load_experiment(tree), work, replace(measured, probes_seconds=11.0))
    assert probed.measuring == pytest.approx(59 + 2 * 11)  # at ends; at rungs where the objective asks
    tree["evaluation"] = {
        "select_tokens": 20_000,
        "test_tokens": 20_000,
    }  # a rung takes a tenth: 2,000 and 1,024 of 2,048
    found = seconds_of(load_experiment(tree), Work(sae_tokens=1, at_rungs=4, at_end=0, streamed_tokens=0), measured)
    assert found.measuring == pytest.approx(4 * (2 / 10 + 5 / 2))


def test_a_model_that_cannot_be_had_is_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree: dict[str, Any] = few_trials()
    tree["base"] |= {"model_name": str(tmp_path / "nowhere"), "dataset_path": "builtin:python-docs"}
    (tmp_path / "e.yaml").write_text(dump_yaml(tree))
    assert main(["plan", str(tmp_path / "e.yaml"), "--calibrate"]) == 2
    error = capsys.readouterr().err
    assert "nowhere" in error
    assert "Traceback" not in error
