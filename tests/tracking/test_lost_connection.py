"""The network goes away in the middle of a sweep: nothing stops, nothing is lost, the command ends."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from saesweep.experiment import dump_yaml
from tests.tracking.offline import read_offline_run
from tests.tracking.stub import WandbStub
from tests.tracking.test_wandb import TREE

pytestmark = pytest.mark.slow

SCRIPT = """
import sys
from saesweep import sweep
from saesweep.cli import main
from saesweep.events import BlockDone
from saesweep.tracking import wandb_runs, wandb_tracker

wandb_runs.INIT_SECONDS, wandb_tracker.CLOSE_SECONDS = 2.0, 8.0
run, blocks = sweep.run, []

def wait(event):
    blocks.extend([event] * isinstance(event, BlockDone))
    if isinstance(event, BlockDone) and len(blocks) == 4:
        print("four blocks", flush=True)
        sys.stdin.readline()

sweep.run = lambda *args, listeners, **kwargs: run(*args, listeners=(*listeners, wait), **kwargs)
sys.exit(main(["run", sys.argv[1], "--run-dir", sys.argv[2], "--display", "plain"]))
"""


@pytest.mark.parametrize("goes_away", [False, True], ids=["stays", "goes-away"])
def test_the_sweep_finishes_and_every_metric_is_on_disk(tmp_path: Path, goes_away: bool) -> None:
    tree = {**TREE, "search": {**TREE["search"], "trials": 3}}
    (tmp_path / "tracked.yaml").write_text(dump_yaml(tree))
    stub = WandbStub()
    env = {**os.environ, "WANDB_API_KEY": "a" * 40, "WANDB_BASE_URL": stub.url, "WANDB_MODE": "online"}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "tracked.yaml"), str(tmp_path / "run")]
    printed = []
    stopped = float("nan")
    with subprocess.Popen(
        command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for line in process.stdout:
            printed.append(line)
            if line.startswith("four blocks"):
                if goes_away:
                    stub.go_away()
                    stopped = time.monotonic()
                process.stdin.write("go on\n")
                process.stdin.flush()
    text = "".join(printed)
    assert process.returncode == 0, text
    if goes_away:
        assert time.monotonic() - stopped < 40  # W&B itself would wait for minutes
        assert "wandb sync" in text
    else:
        stub.go_away()
        assert len(stub.history()) > 0
    board = json.loads((tmp_path / "run" / "leaderboard.json").read_text())
    assert board["status"] == "complete"
    assert not any(
        f"--pid {process.pid}" in " ".join(p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"])
    )
    local = {}
    for file in (tmp_path / "run").glob("wandb/*run-*/run-*.wandb"):
        run = read_offline_run(file)
        if run.history:
            local[run.config["trial"]] = run
    for row in board["rows"]:
        lines = (tmp_path / "run" / "trials" / f"{row['number']:04d}" / "metrics.jsonl").read_text().splitlines()
        losses = [line["losses/overall_loss"] for line in map(json.loads, lines) if line["kind"] == "train"]
        assert local[row["number"]].column("losses/overall_loss") == pytest.approx(losses)
        assert local[row["number"]].column("metrics/l0")[-1] == pytest.approx(row["metrics"]["l0"])
