"""What two workers cost beside one with as many threads: tokens per second, and whether a trial's figures are the same.

    python benchmarks/two_workers.py --threads 2 --tokens 400k

Both runs train the same trials with nothing pruned: once with one worker, once with `cohort.devices: cpu x 2` through Ray,
each worker with half of the threads and half of the slots. The time counted is that of training, without the start of the
processes. The load of the machine is said beside it: with other work on it, the figures are of little use.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SLOTS = 4


def experiment(tokens: str, devices: str, size: int) -> dict[str, Any]:
    """Return the experiment of one of the runs."""
    return {
        "name": "two-workers",
        "base": {
            "model_name": None,
            "hook_name": "synthetic",
            "dataset_path": "builtin:synthetic",
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


def one_run(folder: Path, tree: dict[str, Any], threads: int) -> tuple[float, dict[int, dict[str, Any]]]:
    """Run in a process of its own; return SAE-tokens per second of training and the rows by number."""
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
    # Ray lets its processes stand back behind all others, which on a machine with other work is not what is measured here.
    env = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT), "RAY_worker_niceness": "0"}
    subprocess.run([sys.executable, "-c", code], check=True, env=env, stdout=subprocess.DEVNULL, timeout=900)
    rows = {row["number"]: row for row in json.loads((folder / "run" / "leaderboard.json").read_text())["rows"]}
    return sum(row["tokens"] for row in rows.values()) / json.loads((folder / "seconds.json").read_text()), rows


def main() -> int:
    """Run both, print, and return 1 where a trial that began at the same position has other figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="of both workers together (default: 2)")
    parser.add_argument("--tokens", default="400k", help="training tokens of a trial (default: 400k)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each kind, in turn (default: 3)")
    arguments = parser.parse_args()
    worst = 0.0
    rates: dict[str, list[float]] = {"one": [], "two": []}
    for _ in range(arguments.repeats):
        with tempfile.TemporaryDirectory() as name:
            tree = experiment(arguments.tokens, "auto", SLOTS)
            rate, one = one_run(Path(name) / "one", tree, arguments.threads)
            rates["one"].append(rate)
            tree = experiment(arguments.tokens, "cpu x 2", SLOTS // 2)
            rate, two = one_run(Path(name) / "two", tree, arguments.threads)
            rates["two"].append(rate)
        same = [n for n in one if one[n]["joined_at_tokens"] == two[n]["joined_at_tokens"]]
        worst = max(
            [worst]
            + [
                abs(value - two[number]["metrics"][metric]) / max(1.0, abs(value))
                for number in same
                for metric, value in one[number]["metrics"].items()
            ]
        )
        print(
            f"one worker {rates['one'][-1]:,.0f}, two {rates['two'][-1]:,.0f} SAE-tokens/s; {len(same)} of {len(one)} trials began "
            f"at the same position, largest difference of a metric {worst:.1e}; load {os.getloadavg()[0]:.1f} on "
            f"{os.cpu_count()} cores",
            flush=True,
        )
    overhead = 1 - max(rates["two"]) / max(rates["one"])
    print(f"overhead of two workers, by the best run of each: {100 * overhead:.1f}%")
    return int(worst > 1e-6)


if __name__ == "__main__":
    sys.exit(main())
