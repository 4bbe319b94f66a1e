"""A sweep on two Ray nodes with its study on a PostgreSQL server, where each of these is killed."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.driver.postgres import why_no_server

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_killed_cluster_ends_as_an_undisturbed_one() -> None:
    if find_spec("ray") is None:
        pytest.skip("the extra saesweep[ray] is not installed")
    if (reason := why_no_server()) is not None:
        pytest.skip(reason)
    words = [sys.executable, str(ROOT / "benchmarks" / "kill_cluster.py"), "--kills", "6", "--tokens", "200k"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 kills" in done.stdout
    assert "DIFFERENT" not in done.stdout
