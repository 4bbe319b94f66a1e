"""Kills a sweep at random moments and restarts it until it is done; the result must equal an undisturbed run's.

    python benchmarks/kill_resume.py --kills 25

Prints each kill, what was done again, and the verdict; exits 1 where the two runs differ in any bit.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.sweep.studies import snapshot

EXPERIMENT = """
name: kill
base:
  model_name: builtin:tiny-lm
  hook_name: model.layers.1
  dataset_path: builtin:python-docs
  context_size: 64
  training_tokens: 20_480
  train_batch_size_tokens: 512
  n_checkpoints: 2
  buffer_tokens: 8192
  device: cpu
  lr: 3e-3
  sae: {architecture: topk, d_in: 128, d_sae: 256, normalize_activations: expected_average_only_in}
space:
  sae.architecture: {choice: [topk, batchtopk, standard]}
  sae.k: {int: [4, 32], log: true}
  sae.l1_coefficient: {float: [1, 10], log: true}
  lr: {float: [1e-3, 1e-2], log: true}
evaluation: {select_tokens: 2k, test_tokens: 2k}
search: {trials: 9, stratify: sae.architecture, rungs: [25%, 50%]}
cohort: {size: 3, checkpoint_seconds: 0.5, block_tokens: 5120}
"""
_TWO_STREAMS = "space:\n  train_batch_size_tokens: {choice: [256, 512]}\n"


def command(file: Path, run_dir: Path) -> list[str]:
    """Return the one command that starts and resumes."""
    return [sys.executable, "-m", "saesweep", "run", str(file), "--run-dir", str(run_dir), "--display", "none"]


def main() -> int:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=5, help="how often to kill before letting it finish (default: 5)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments (default: 0)")
    parser.add_argument("--streams", action="store_true", help="search over two activation streams")
    parser.add_argument("--signal", choices=("SIGKILL", "SIGINT"), default="SIGKILL")
    args = parser.parse_args()
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kill.yaml"
        file.write_text(EXPERIMENT.replace("space:\n", _TWO_STREAMS) if args.streams else EXPERIMENT)
        reference = Path(folder) / "reference"
        started = time.monotonic()
        subprocess.run(command(file, reference), check=True)
        whole_seconds = time.monotonic() - started
        training_seconds = float(_events(reference)[-1]["seconds"])
        print(f"undisturbed: {whole_seconds:.1f} s, {training_seconds:.1f} s of them training")
        runs, kills = 0, 0
        while kills < args.kills or runs == 0:
            # A run that is done is compared, and the kills that are left fall upon a fresh one.
            runs += 1
            run_dir = Path(folder) / f"killed-{runs}"
            while kills < args.kills:
                # One kill in five falls into the start-up, the others into the training that follows a block.
                in_start_up = rng.random() < 0.2
                share = rng.random()
                process = subprocess.Popen(command(file, run_dir), start_new_session=True)
                before = _blocks(run_dir)
                if not in_start_up:
                    while process.poll() is None and _blocks(run_dir) <= before:
                        time.sleep(0.02)
                try:
                    process.wait(
                        timeout=share * (whole_seconds - training_seconds if in_start_up else training_seconds / 5)
                    )
                    break
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, getattr(signal, args.signal))
                    process.wait()
                    kills += 1
                    print(f"kill {kills}{' (start-up)' if in_start_up else ''}: {_position(run_dir)}")
            subprocess.run(command(file, run_dir), check=True)
            if snapshot(run_dir) != snapshot(reference):
                print(f"run {runs}: the study, the metrics or the weights are DIFFERENT")
                return 1
            print(f"run {runs}: done after {kills} kills in all; study, metrics and weights are identical")
        return 0


def _blocks(run_dir: Path) -> int:
    """Return how many blocks the events tell of."""
    return sum(event["event"] == "BlockDone" for event in _events(run_dir))


def _events(run_dir: Path) -> list[dict[str, Any]]:
    """Return the run's events; a torn last line is left out."""
    path = run_dir / "events.jsonl"
    whole = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in whole if line.endswith("\n")]


def _position(run_dir: Path) -> str:
    """Say how far the run had come, and how far its last checkpoint."""
    board = run_dir / "leaderboard.json"
    if not board.exists():
        return "before the first block"
    reached = json.loads(board.read_text())["stream_tokens"]
    states = sorted((run_dir / "checkpoints").glob("[0-9]*/state.json"))
    if not states:
        return f"stream at {reached} tokens, no checkpoint yet: all of it is done again"
    saved = json.loads(states[-1].read_text())["stream_tokens"]
    return f"stream at {reached} tokens, last checkpoint at {saved}: {reached - saved} tokens are done again"


if __name__ == "__main__":
    sys.exit(main())
