"""Values from outside the file: `--set`, and references to environment variables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from saesweep.errors import Problem
from saesweep.experiment import load_experiment

One = Callable[..., Problem]


def test_values_follow_the_scalar_rules_of_the_file(tree: dict[str, Any]) -> None:
    overrides = ["base.lr=1e-4", "base.training_tokens=2M", "base.streaming=false", "base.sae.k=16_0", "name=no"]
    experiment = load_experiment(tree, overrides=overrides)
    run = experiment.resolve({})
    assert (run.lr, run.training_tokens, run.streaming, run.sae.model_dump()["k"]) == (1e-4, 2_000_000, False, 160)
    assert experiment.spec.name == "no"


def test_keys_of_the_space_hold_dots(tree: dict[str, Any]) -> None:
    tree["space"] = {"sae.k": {"int": [8, 64]}, "lr": {"float": [1e-4, 1e-3]}}
    overrides = ["space.sae.k.int=[4, 8]", "space.lr.log=true", "space.adam_beta1.choice=[0.0, 0.9]"]
    space = load_experiment(tree, overrides=overrides).tree["space"]
    assert space == {
        "sae.k": {"int": [4, 8]},
        "lr": {"float": [1e-4, 1e-3], "log": True},
        "adam_beta1": {"choice": [0.0, 0.9]},
    }


def test_a_whole_range_and_one_of_a_list(tree: dict[str, Any]) -> None:
    tree["space"] = {
        "sae.architecture": {"choice": ["standard", "gated"]},
        "sae.l1_coefficient": [
            {"float": [1, 2], "when": {"sae.architecture": "standard"}},
            {"float": [1, 2], "when": {"sae.architecture": "gated"}},
        ],
    }
    overrides = ["space.lr={float: [1e-4, 1e-3]}", "space.sae.l1_coefficient.1.float=[3, 4]"]
    space = load_experiment(tree, overrides=overrides).tree["space"]
    assert space["lr"] == {"float": [1e-4, 1e-3]}
    assert [r["float"] for r in space["sae.l1_coefficient"]] == [[1, 2], [3, 4]]


def test_by_architecture_and_conditions(tree: dict[str, Any]) -> None:
    overrides = ["by_architecture.topk.sae.k=12", "objective.minimize=mse", "objective.subject_to.l0.max=64"]
    experiment = load_experiment(tree, overrides=overrides)
    assert experiment.tree["by_architecture"] == {"topk": {"sae.k": 12}}
    assert experiment.objective(True).subject_to["l0"].max == 64


def test_later_overrides_win_and_the_source_is_untouched(tree: dict[str, Any]) -> None:
    experiment = load_experiment(tree, overrides=["base.lr=1e-4", "base.lr=1e-5"])
    assert experiment.tree["base"]["lr"] == 1e-5
    assert "lr" not in tree["base"]


def test_an_empty_space_from_the_command_line(tree: dict[str, Any]) -> None:
    tree["space"] = {"sae.k": {"int": [8, 64]}}
    assert load_experiment(tree, overrides=["space={}"]).n_trials == 1


@pytest.mark.parametrize(
    ("override", "path", "says"),
    [
        ("base.lr", "", "is not path=value"),
        ("=5", "", "is not path=value"),
        ("base.lrr=1", "base.lrr", "did you mean 'lr'"),
        ("lr=1e-3", "lr", "did you mean 'base.lr'"),
        ("spase.lr.float=[1, 2]", "spase", "did you mean 'space'"),
        ("space.sae.kk.int=[1, 2]", "space.sae.kk", "did you mean 'sae.k'"),
        ("base.sae.k.x=1", "base.sae.k", "not a mapping"),
        ("base.lr=[1", "base.lr", "not valid YAML"),
        ("base.lr=.inf", "base.lr", "not a finite number"),
        ("base.lr=fast", "base.lr", "takes a number, not 'fast'"),
        ("search.baselines.3=x", "search.baselines.3", "no place in a list"),
    ],
)
def test_wrong_overrides(tree: dict[str, Any], only_problem: One, override: str, path: str, says: str) -> None:
    tree["base"]["sae"]["k"] = 8
    tree["search"] = {"baselines": []}
    problem = only_problem(tree, overrides=[override])
    assert (problem.file, problem.path) == ("--set", path)
    assert says in problem.message


def test_an_override_mends_a_mistake_of_the_file(write: Callable[[str], Path], tree: dict[str, Any]) -> None:
    tree["base"]["lr"] = "fast"
    assert load_experiment(tree, overrides=["base.lr=1e-3"]).resolve({}).lr == 1e-3


def test_variables_and_defaults(tree: dict[str, Any]) -> None:
    tree["base"]["dataset_path"] = "${env:DATA}/part-${env:PART:-0}.jsonl"
    tree["base"]["training_tokens"] = "${env:TOKENS:-2M}"
    experiment = load_experiment(tree, env={"DATA": "/data"})
    assert experiment.tree["base"]["dataset_path"] == "/data/part-0.jsonl"
    assert experiment.resolve({}).training_tokens == 2_000_000


def test_the_process_environment_is_the_default(tree: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAESWEEP_TEST_NAME", "from-env")
    tree["name"] = "${env:SAESWEEP_TEST_NAME}"
    assert load_experiment(tree).spec.name == "from-env"


def test_a_variable_cannot_add_keys(tree: dict[str, Any]) -> None:
    tree["base"]["dataset_path"] = "${env:X}"
    experiment = load_experiment(tree, env={"X": "a: {b: c}\nd: ${env:Y}"})
    assert experiment.tree["base"]["dataset_path"] == "a: {b: c}\nd: ${env:Y}"


def test_a_missing_variable_is_located(write: Callable[[str], Path], problems: Callable[..., list[Problem]]) -> None:
    found = problems(write("name: a\nbase:\n  dataset_path: ${env:NOWHERE}\n"), env={})
    problem = next(p for p in found if p.path == "base.dataset_path")
    assert problem.line == 3
    assert "NOWHERE is not set" in problem.message


@pytest.mark.parametrize("text", ["${env:}", "${env:1X}", "${env:A-B}"])
def test_malformed_references(tree: dict[str, Any], only_problem: Callable[..., Problem], text: str) -> None:
    tree["base"]["dataset_path"] = text
    assert "write ${env:NAME}" in only_problem(tree, env={}).message


def test_other_dollars_are_left_alone(tree: dict[str, Any]) -> None:
    tree["base"]["dataset_path"] = "${HOME}/$x"
    assert load_experiment(tree, env={}).tree["base"]["dataset_path"] == "${HOME}/$x"
