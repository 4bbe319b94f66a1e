"""A kill right before any rename of a run with a confirmation costs nothing but time."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "kill_renames.py"


def kill_and_compare(*options: str) -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all identical" in done.stdout


@pytest.mark.long
def test_killed_before_every_fortieth_rename() -> None:
    kill_and_compare("--every", "40")


@pytest.mark.slow
def test_killed_before_every_rename() -> None:
    kill_and_compare()
