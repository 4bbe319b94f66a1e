"""SIGKILL at random moments, in processes of their own; `benchmarks/kill_data.py --kills 20` does more of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "kill_data.py"


@pytest.mark.long
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the script forks")
def test_killed_writers_leave_the_same_files(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--kills", "5", "--tokens", "16384"],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HOME": str(tmp_path)},
        check=False,
    )
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr[-2000:]
    assert [(result["command"], result["kills"], result["identical"]) for result in results] == [
        ("cache-activations", 5, True),
        ("pretokenize", 5, True),
    ]
