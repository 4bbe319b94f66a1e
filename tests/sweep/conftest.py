"""A small experiment on synthetic activations: the whole product in a few seconds."""

from pathlib import Path
from typing import Any

import pytest

from tests.sweep.studies import small_sweep


@pytest.fixture
def tree() -> dict[str, Any]:
    return small_sweep()


@pytest.fixture
def experiment_file(tree: dict[str, Any], tmp_path: Path) -> Path:
    from saesweep.experiment import dump_yaml

    path = tmp_path / "tiny.yaml"
    path.write_text(dump_yaml(tree))
    return path
