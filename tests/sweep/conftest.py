"""A small experiment on synthetic activations: the whole product in a few seconds."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import saesweep
from saesweep.events import Event
from tests.sweep.studies import small_sweep


@pytest.fixture
def tree() -> dict[str, Any]:
    return small_sweep()


@dataclass(frozen=True)
class Finished:
    """The experiment of `small_sweep`, trained once without anything that disturbs it."""

    result: saesweep.Result
    folder: Path
    events: tuple[Event, ...]

    def copied_to(self, folder: Path) -> Path:
        """Return a copy for a test that writes into it."""
        return shutil.copytree(self.folder, folder)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder, events = tmp_path_factory.mktemp("finished") / "run", list[Event]()
    result = saesweep.run(small_sweep(), run_dir=folder, listeners=[events.append])
    return Finished(result, folder, tuple(events))


@pytest.fixture
def experiment_file(tree: dict[str, Any], tmp_path: Path) -> Path:
    from saesweep.experiment import dump_yaml

    path = tmp_path / "tiny.yaml"
    path.write_text(dump_yaml(tree))
    return path
