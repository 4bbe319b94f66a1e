"""What two workers cost beside one with as many threads: tokens per second, and whether a trial's figures are the same.

    python benchmarks/two_workers.py --threads 2 --tokens 400k
    python benchmarks/two_workers.py --threads 2 --tokens 200k --activations model

Both runs train the same trials with nothing pruned: once with one worker, once with `cohort.devices: cpu x 2` through Ray,
each worker with half of the threads and half of the slots. The time counted is that of training, without the start of the
processes. With `--activations model` they read the built-in language model, which each worker runs for itself; `cache` has
two workers read a cache that is made first, and counts the time that it takes as theirs. The load of the machine is said
beside it: with other work on it, the figures are of little use.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SLOTS = 4
BASES: dict[str, dict[str, Any]] = {
    "synthetic": {"model_name": None, "hook_name": "synthetic", "dataset_path": "builtin:synthetic"},
    "model": {
        "model_name": "builtin:tiny-lm",
        "hook_name": "model.layers.1",
        "dataset_path": "builtin:python-docs",
        "context_size": 128,
    },
}


def experiment(tokens: str, source: str, devices: str, size: int) -> dict[str, Any]:
    """Return the experiment of one of the runs."""
    return {
        "name": "two-workers",
        "base": {
            **BASES[source],
            "training_tokens": tokens,
            "train_batch_size_tokens": 1024,
            "device": "cpu",
            "sae": {"architecture": "topk", "d_in": 128, "d_sae": 1024},
        },
        "space": {"sae.k": {"choice": [8, 16]}, "lr": {"choice": [1e-3, 3e-3]}},
        "objective": {"maximize": "explained_variance"},
        "search": {"sampler": "grid", "trials": SLOTS, "pruner": "none"},
        "cohort": {"devices": devices, "size": size, "kernels": "reference"},
        "evaluation": {"select_tokens": 8192, "test_tokens": 8192},
    }


def environment(threads: int) -> dict[str, str]:
    """Return that of a process that trains."""
    # Ray lets its processes stand back behind all others, which on a machine with other work is not what is measured here.
    return {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT), "RAY_worker_niceness": "0"}


def one_run(folder: Path, tree: dict[str, Any], threads: int) -> tuple[float, dict[str, Any]]:
    """Run in a process of its own; return the seconds of training and the leaderboard."""
    folder.mkdir()
    (folder / "experiment.json").write_text(json.dumps(tree))
    code = (
        "import json, sys, time, saesweep\n"
        "from saesweep.events import BlockDone\n"
        "began = []\n"
        "def listen(event):\n"
        "    if type(event).__name__ == 'RunStarted': began.append(time.monotonic())\n"
        "    if isinstance(event, BlockDone): began.append(time.monotonic())\n"
        f"saesweep.run(json.load(open({str(folder / 'experiment.json')!r})), run_dir={str(folder / 'run')!r}, listeners=[listen])\n"
        f"json.dump(began[-1] - began[0], open({str(folder / 'seconds.json')!r}, 'w'))\n"
    )
    command = [sys.executable, "-c", code]
    subprocess.run(command, check=True, env=environment(threads), stdout=subprocess.DEVNULL, timeout=900)
    seconds: float = json.loads((folder / "seconds.json").read_text())
    return seconds, json.loads((folder / "run" / "leaderboard.json").read_text())


def make_cache(folder: Path, tree: dict[str, Any], tokens: int, threads: int) -> float:
    """Cache the activations that a run streamed; return the seconds that it took."""
    folder.mkdir()
    (folder / "experiment.json").write_text(json.dumps(tree))
    words = [
        "cache-activations",
        str(folder / "experiment.json"),
        "--to",
        str(folder / "rows"),
        "--tokens",
        str(tokens),
    ]
    began = time.monotonic()
    command = [sys.executable, "-m", "saesweep", *words]
    subprocess.run(command, check=True, env=environment(threads), stdout=subprocess.DEVNULL, timeout=900)
    return time.monotonic() - began


def main() -> int:
    """Run both, print, and return 1 where a trial that began at the same position has other figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="of both workers together (default: 2)")
    parser.add_argument("--tokens", default="400k", help="training tokens of a trial (default: 400k)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each kind, in turn (default: 3)")
    parser.add_argument("--activations", choices=("synthetic", "model", "cache"), default="synthetic")
    arguments = parser.parse_args()
    source = "synthetic" if arguments.activations == "synthetic" else "model"
    worst = 0.0
    rates: dict[str, list[float]] = {"one": [], "two": []}
    for _ in range(arguments.repeats):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            tree = experiment(arguments.tokens, source, "auto", SLOTS)
            seconds, board = one_run(folder / "one", tree, arguments.threads)
            one, streamed = {row["number"]: row for row in board["rows"]}, board["stream_tokens"]
            trained = sum(row["tokens"] for row in one.values())
            rates["one"].append(trained / seconds)
            tree = experiment(arguments.tokens, source, "cpu x 2", SLOTS // 2)
            made = 0.0
            if arguments.activations == "cache":
                made = make_cache(folder / "cache", tree, streamed, arguments.threads)
                rows = {"use_cached_activations": True, "cached_activations_path": str(folder / "cache" / "rows")}
                tree["base"] |= rows
            seconds, board = one_run(folder / "two", tree, arguments.threads)
            two = {row["number"]: row for row in board["rows"]}
            rates["two"].append(trained / (seconds + made))
        same = [n for n in one if one[n]["joined_at_tokens"] == two[n]["joined_at_tokens"]]
        differences = [
            abs(one[number]["metrics"][metric] - value) / max(1.0, abs(value))
            for number in same
            for metric, value in two[number]["metrics"].items()
        ]
        worst = max(worst, *differences) if differences else float("inf")
        cached = f" ({made:.1f} s of them the cache)" if made else ""
        print(
            f"one worker {rates['one'][-1]:,.0f}, two {rates['two'][-1]:,.0f} SAE-tokens/s, {seconds + made:.1f} s{cached}; "
            f"{len(same)} of {len(one)} trials began at the same position, largest difference of a metric {worst:.1e}; load "
            f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores",
            flush=True,
        )
    overhead = 1 - max(rates["two"]) / max(rates["one"])
    print(f"overhead of two workers, by the best run of each: {100 * overhead:.1f}%")
    return int(worst > 1e-6)


if __name__ == "__main__":
    sys.exit(main())
