"""The small synthetic experiment of tests/sweep with few trials, and what it gives when nothing disturbs it."""

import tempfile
from pathlib import Path
from typing import Any

import pytest

import saesweep
from tests.sweep.studies import small_sweep, snapshot


def few_trials() -> dict[str, Any]:
    tree = small_sweep()
    tree["evaluation"] = {"select_tokens": 1024, "test_tokens": 1024}
    tree["space"]["sae.architecture"] = {"choice": ["topk", "standard"]}
    del tree["space"]["sae.l0_coefficient"], tree["by_architecture"]
    tree["search"] |= {"trials": 6}
    tree["cohort"] |= {"size": 3, "block_tokens": 1280}
    return tree


@pytest.fixture
def tree() -> dict[str, Any]:
    return few_trials()


@pytest.fixture(scope="session")
def reference() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        saesweep.run(few_trials(), run_dir=Path(folder) / "run")
        return snapshot(Path(folder) / "run")
