from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from saesweep.errors import ExperimentError, Problem
from saesweep.experiment import load_experiment

TREE: dict[str, Any] = {
    "name": "t",
    "base": {
        "model_name": "builtin:tiny-lm",
        "hook_name": "model.layers.2",
        "dataset_path": "builtin:python-docs",
        "training_tokens": 1_000_000,
        "train_batch_size_tokens": 1000,
        "sae": {"architecture": "topk", "d_in": 128, "d_sae": 1024},
    },
}


@pytest.fixture
def tree() -> dict[str, Any]:
    """A valid experiment without a space, to be changed by the test."""
    return copy.deepcopy(TREE)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    """Write a YAML text to a file."""

    def write_text(text: str) -> Path:
        path = tmp_path / "e.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write_text


@pytest.fixture
def problems() -> Callable[..., list[Problem]]:
    """Load and return the problems found, none for a valid experiment."""

    def load(source: Any, **kwargs: Any) -> list[Problem]:
        try:
            load_experiment(source, **kwargs)
        except ExperimentError as error:
            return error.problems
        return []

    return load


@pytest.fixture
def only_problem(problems: Callable[..., list[Problem]]) -> Callable[..., Problem]:
    """Load and return the one problem that is expected."""

    def load(source: Any, **kwargs: Any) -> Problem:
        found = problems(source, **kwargs)
        assert len(found) == 1, [p.render() for p in found]
        return found[0]

    return load
