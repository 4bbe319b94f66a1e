"""`validate` finds every mistake of the lists beside it and says exactly what that says, without a network and without weights."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from saesweep.at_hand import check_before_run
from saesweep.cli import main
from saesweep.errors import ExperimentError
from saesweep.experiment import Experiment, load_experiment

from .mistaken_shapes import MISTAKEN_SHAPES
from .mistakes import BASE, BASE_LR, LR, MISTAKES, K
from .mistakes_at_hand import MISTAKES_AT_HAND

ROOT = Path(__file__).resolve().parents[2]
ALL = {**MISTAKES, **MISTAKES_AT_HAND, **MISTAKEN_SHAPES}


def load(tmp_path: Path, text: str, overrides: tuple[str, ...] = ()) -> Experiment:
    file = tmp_path / "mistakes.yaml"
    file.write_text(text)
    return load_experiment(file, overrides=overrides, also=(check_before_run,))


def messages(error: ExperimentError) -> list[str]:
    return [f"{p.line}:{p.column}: " + (f"{p.path}: " if p.path else "") + p.message for p in error.problems]


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_the_file_that_the_mistakes_are_made_in_has_none(tmp_path: Path) -> None:
    assert load(tmp_path, BASE).warnings == ()
    assert len(ALL) >= 60


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("name", ALL)
def test_each_mistake_gets_its_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    old, new, *expected = ALL[name]
    assert old in BASE
    with pytest.raises(ExperimentError) as caught:
        load(tmp_path, BASE.replace(old, new))
    assert messages(caught.value) == expected


def test_mistakes_of_every_kind_are_found_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = ("wandb-log", "bare-list", "percent-in-words", "missing-data-file", "layer-too-high", "context-too-long")
    text = BASE
    for name in names:
        text = text.replace(ALL[name][0], ALL[name][1], 1)
    with pytest.raises(ExperimentError) as caught:
        load(tmp_path, text)
    found = {(problem.path, problem.message) for problem in caught.value.problems}
    assert found == {tuple(ALL[name][2].split(": ", 2)[1:]) for name in names}
    assert main(["validate", "mistakes.yaml"]) == 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "base.lr=2e-3",
            "space.lr gives every trial a value of its own, so that this one would never hold; "
            "to give all trials the same, write --set 'space.lr={choice: [2e-3]}'",
        ),
        (
            "base.sae.k=16",
            "space.sae.k gives every trial a value of its own, so that this one would never hold; "
            "to give all trials the same, write --set 'space.sae.k={choice: [16]}'",
        ),
    ],
)
def test_set_on_a_value_that_the_space_overrides(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ExperimentError) as caught:
        load(tmp_path, BASE, (override,))
    (problem,) = caught.value.problems
    assert (problem.path, problem.message) == (override.partition("=")[0], message)
    advised = message.partition("--set '")[2].rstrip("'")
    assert load(tmp_path, BASE, (advised,)).n_trials == 15  # what the message says to write works


def test_set_on_a_value_that_only_some_trials_draw_is_taken(tmp_path: Path) -> None:
    text = BASE.replace("sae.k: {int: [8, 64], log: true}", "sae.d_sae: {choice: [512, 1024]}").replace(
        LR, "lr: {float: [8e-4, 5e-3], log: true, when: {sae.d_sae: 512}}"
    )
    assert load(tmp_path, text, ("base.lr=2e-3",)).resolve({"sae.d_sae": 1024}).lr == 2e-3


@pytest.mark.parametrize(
    ("device", "line"),
    [
        ("cuda:99", "asks for a CUDA device, this machine has "),
        ("cuda:x", "is no device; use auto, cpu, cuda, cuda:0 or mps"),
    ],
)
def test_a_device_that_is_not_there(tmp_path: Path, device: str, line: str) -> None:
    with pytest.raises(ExperimentError) as caught:
        load(tmp_path, BASE.replace(BASE_LR, f"{BASE_LR}  device: {device}\n"))
    (problem,) = caught.value.problems
    assert problem.path == "base.device"
    assert line in problem.message


def test_counts_are_bounds(tmp_path: Path) -> None:
    found = load(tmp_path, BASE.replace(K, "sae.d_sae: {int: [1k, 16k], log: true}"))
    (spec,) = found.spec.space["sae.d_sae"]
    assert (spec.low, spec.high) == (1000, 16_000)


@pytest.mark.parametrize(
    ("library", "written", "used"),
    [
        ("AutoModelForCausalLM", "blocks.2.hook_resid_post", "model.layers.2"),
        ("AutoModelForCausalLM", "blocks.2.hook_resid_pre", "model.layers.2:input"),
        ("AutoModelForCausalLM", "blocks.1.hook_mlp_out", "model.layers.1.mlp"),
        ("TransformerBridge", "model.layers.2", "blocks.2.hook_resid_post"),
        ("AutoModelForCausalLM", "model.layers.2", "model.layers.2"),
    ],
)
def test_hooks_are_known_by_the_names_of_both_libraries(tmp_path: Path, library: str, written: str, used: str) -> None:
    text = BASE.replace("AutoModelForCausalLM", library).replace("model.layers.2", written)
    found = load(tmp_path, text)
    assert found.base_run().hook_name == used
    assert found.written["base"]["hook_name"] == used  # what the run directory keeps loads the same
    assert bool(found.warnings) == (written != used)


def test_searched_hooks_and_baselines_are_translated_too(tmp_path: Path) -> None:
    text = BASE.replace(K, "hook_name: {choice: [blocks.1.hook_resid_post, model.layers.2]}")
    text = text.replace("trials: 15", "trials: 15, baselines: [{hook_name: blocks.1.hook_resid_post}]")
    found = load(tmp_path, text)
    assert found.hook_names() == ("model.layers.1", "model.layers.2")
    assert found.spec.search.baselines[0]["hook_name"] == "model.layers.1"


def test_autocast_on_a_cpu_is_warned_about(tmp_path: Path) -> None:
    text = BASE.replace(BASE_LR, f"{BASE_LR}  autocast: true\n  device: cpu\n")
    (warning,) = load(tmp_path, text).warnings
    assert warning.startswith("base.autocast on a CPU: ")
    assert "leave it out" in warning


def test_validate_needs_no_torch(tmp_path: Path) -> None:
    file = tmp_path / "mistakes.yaml"
    file.write_text(BASE)
    code = (
        "import sys; from saesweep.cli import main; "
        f"code = main(['validate', {str(file)!r}]); assert 'torch' not in sys.modules; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
