"""SIGKILL and Ctrl-C at random moments, then the same command: the study of an undisturbed run, bit for bit."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "kill_resume.py"


def kill_and_compare(kills: int, signal: str, seed: int, *options: str) -> str:
    command = [sys.executable, str(SCRIPT), "--kills", str(kills), "--signal", signal, "--seed", str(seed), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "identical" in done.stdout
    return done.stdout


@pytest.mark.long
def test_killed_five_times() -> None:
    printed = kill_and_compare(5, "SIGKILL", seed=3)
    assert printed.count("kill ") == 5, printed


@pytest.mark.slow
def test_killed_while_searching_over_streams() -> None:
    kill_and_compare(10, "SIGKILL", 1, "--streams")


@pytest.mark.slow
@pytest.mark.parametrize("signal", ["SIGKILL", "SIGINT"])
def test_killed_at_25_random_moments(signal: str) -> None:
    kill_and_compare(25, signal, seed=0)
