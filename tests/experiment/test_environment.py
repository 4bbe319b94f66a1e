from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from saesweep.errors import Problem
from saesweep.experiment import load_experiment


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
