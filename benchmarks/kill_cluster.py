"""Kills workers, a node, the whole cluster, the driver and the database of one sweep; it must end as an undisturbed one.

    python benchmarks/kill_cluster.py --kills 30

Two Ray nodes on this machine (Ray's own test cluster), each with a processor for one worker, and the study on a PostgreSQL
server of its own (Debian's package). First an undisturbed sweep over a grid, whose trials must have the figures that the local
engine gives them; then the same sweep with kills at moments drawn from the seed. Every trial must end exactly once, in the
study and in the run directory, the best one must be the undisturbed run's, and a trial that never moved to another worker
must have the same figures to 1e-6. Prints a line for each kill and exits 1 on any difference.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.kill_cluster_run import KINDS, Disturbed, TwoNodes, ended_as, run_once
from tests.driver.postgres import running_server, why_no_server

TOLERANCE = 1e-6
SHARES = {"worker": 10, "driver": 8, "node": 5, "database": 5, "cluster": 2}
"""Of 30 kills."""
assert set(SHARES) == set(KINDS)


def experiment(tokens: str, name: str) -> dict[str, Any]:
    """Return a grid sweep in which every trial has the same number of tokens: three times as many trials as slots."""
    return {
        "name": name,
        "base": {
            "model_name": None,
            "hook_name": "synthetic",
            "dataset_path": "builtin:synthetic",
            "training_tokens": tokens,
            "train_batch_size_tokens": 512,
            "device": "cpu",
            "sae": {"architecture": "topk", "d_in": 64, "d_sae": 512},
        },
        "space": {"sae.k": {"choice": [2, 4, 8, 16]}, "lr": {"choice": [1e-4, 1e-3, 3e-3]}},
        "objective": {"maximize": "explained_variance"},
        "search": {"sampler": "grid", "trials": 12, "pruner": "none"},
        "cohort": {"kernels": "reference", "checkpoint_seconds": 1, "block_tokens": "20k"},
        "evaluation": {"select_tokens": 8192, "test_tokens": 8192},
    }


def on_cluster(tokens: str, name: str, url: str, restart_seconds: float) -> dict[str, Any]:
    """Return the same sweep for two workers of two slots each, with its study in a database."""
    tree = experiment(tokens, name)
    tree["search"]["storage"] = url
    tree["cohort"] |= {"devices": "cpu x 2", "size": 2}
    return tree | {"engine": {"ray": {"restart_seconds": restart_seconds}}}


def drawn(kills: int, seed: int) -> list[tuple[float, str]]:
    """Return the kills in order: how much of the sweep is done by then, and what is killed."""
    dice = random.Random(seed)
    kinds = dice.sample(list(SHARES), counts=list(SHARES.values()), k=sum(SHARES.values()))
    kinds = [kinds[place % len(kinds)] for place in range(kills)]
    return list(zip(sorted(dice.uniform(0.02, 0.95) for _ in range(kills)), kinds, strict=True))


def main() -> int:
    """Run all, print, and return 1 on a difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30, help="how many in all (default: 30)")
    parser.add_argument("--seed", type=int, default=0, help="of what is killed and when (default: 0)")
    parser.add_argument("--tokens", default="800k", help="training tokens of a trial (default: 800k)")
    parser.add_argument("--keep", type=Path, help="folder for the run directories; a temporary one when left out")
    arguments = parser.parse_args()
    if (reason := why_no_server()) is not None:
        print(f"cannot run: {reason}")
        return 2
    with tempfile.TemporaryDirectory() as name, running_server() as server:
        folder = arguments.keep or Path(name)
        local = experiment(arguments.tokens, "local")
        local["cohort"]["size"] = 4
        run_once(folder / "local", local)
        reference = ended_as(folder / "local", None, "local")
        print(f"local engine: {len(reference)} trials, best {best_of(folder / 'local')}", flush=True)
        with TwoNodes() as nodes:
            began = time.monotonic()
            tree = on_cluster(arguments.tokens, "undisturbed", server.url, 60)
            run_once(folder / "undisturbed", tree, nodes)
            seconds = time.monotonic() - began
            found = ended_as(folder / "undisturbed", server.open_url, "undisturbed")
            wrong = compared(reference, found, folder / "local", folder / "undisturbed")
            print(f"two nodes, undisturbed: {seconds:.0f} s; {wrong[0]}", flush=True)
            began = time.monotonic()
            disturbed = Disturbed(folder / "killed", nodes, server, random.Random(arguments.seed + 1))
            tree = on_cluster(arguments.tokens, "killed", server.url, 15)
            disturbed.run(tree, drawn(arguments.kills, arguments.seed))
            killed_seconds = time.monotonic() - began
            counts = Counter(kill.kind for kill in disturbed.kills)
            said = ", ".join(f"{counts[kind]} x {kind}" for kind in KINDS if counts[kind])
            print(
                f"{len(disturbed.kills)} kills ({said}) in {killed_seconds:.0f} s, {disturbed.starts} starts of the command"
            )
            found = ended_as(folder / "killed", server.open_url, "killed")
            worse = compared(reference, found, folder / "local", folder / "killed")
            print(worse[0])
    for problem in (*wrong[1], *worse[1], *disturbed.problems):
        print(f"DIFFERENT: {problem}")
    return int(bool(wrong[1] or worse[1] or disturbed.problems))


def best_of(run_dir: Path) -> int | None:
    """Return the number of the best trial."""
    found: int | None = json.loads((run_dir / "leaderboard.json").read_text())["best"]
    return found


def compared(reference: dict[int, Any], found: dict[int, Any], own: Path, other: Path) -> tuple[str, list[str]]:
    """Return what to say of a run beside the local one, and what differs."""
    problems = [problem for trial in found.values() for problem in trial.problems]
    if found.keys() != reference.keys():
        problems.append(f"trials {sorted(found)} in place of {sorted(reference)}")
    if best_of(own) != best_of(other):
        problems.append(f"the best is trial {best_of(other)}, and {best_of(own)} with the local engine")
    stayed, worst = 0, 0.0
    for number, trial in found.items():
        before = reference.get(number)
        if before is None or trial.params != before.params:
            problems.append(f"trial {number} has other settings")
            continue
        if trial.has_moved or trial.joined_at_tokens != before.joined_at_tokens:
            continue
        stayed += 1
        if trial.metrics.keys() != before.metrics.keys():
            problems.append(f"trial {number} has other metrics")
            continue
        worst = max(worst, *(abs(value - before.metrics[name]) for name, value in trial.metrics.items()))
    if worst > TOLERANCE:
        problems.append(f"a metric differs by {worst:.1e}")
    moved = sum(trial.has_moved for trial in found.values())
    text = (
        f"{len(found)} trials ended once, best {best_of(other)}; {stayed} trained where the local engine trained them, their "
        f"metrics differ by at most {worst:.1e}; {moved} have moved to another worker"
    )
    return text, problems


if __name__ == "__main__":
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    sys.exit(main())
