"""What pruning saves and what it costs: the same search with and without rungs, over several seeds.

    .venv/bin/python benchmarks/pruning.py --model stories --work-dir bench-pruning --markdown
    .venv/bin/python benchmarks/pruning.py --quick            # a smoke check: tiny budgets, figures mean nothing

Each seed runs two searches of the same space with the same sampler and seeds: every trial to its end, and with rungs and
refilling. Both are run by `saesweep run`, in processes of their own; those found finished in the work directory are not run
again, and an interrupted one resumes. The cost is in SAE-tokens, which no other process can disturb.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml
from cohort import machine
from sweep_setup import MODELS, experiment

HERE = Path(__file__).resolve().parent
METRIC = "explained_variance"


def search(args: argparse.Namespace, work: Path, seed: int, pruner: str) -> dict[str, Any]:
    """Run one search, or read what it came to; returns its cost and its best trial."""
    name = f"{pruner}-{seed}"
    tree = experiment(name, model=args.model, trials=args.trials, tokens=args.tokens, pruner=pruner)
    tree["base"]["seed"] = tree["search"]["seed"] = seed
    tree["search"]["sampler"] = "tpe"
    tree["base"]["train_batch_size_tokens"] = args.batch_tokens
    file, run_dir = work / f"{name}.yaml", work / name
    file.write_text(yaml.safe_dump(tree))
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])}
    env |= {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // args.jobs))}
    command = [sys.executable, "-m", "saesweep", "run", str(file), "--run-dir", str(run_dir), "--display", "none"]
    subprocess.run(command, check=True, env=env)
    board = json.loads((run_dir / "leaderboard.json").read_text())
    best = next(row for row in board["rows"] if row["number"] == board["best"])
    print(f"{name}: trial {best['number']} {best['architecture']} {best['sparsity']}", file=sys.stderr, flush=True)
    return {
        "sae_tokens": sum(row["tokens"] for row in board["rows"]),
        "full_sae_tokens": len(board["rows"]) * best["total_tokens"],
        "pruned": sum(row["status"] == "pruned" for row in board["rows"]),
        "best": {"select": best["metrics"][METRIC], "test": board["test_metrics"][METRIC]},
        "winner": f"{best['architecture']} {best['sparsity']}, lr {best['lr']:.2g}",
    }


def compare(args: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Run all searches and reduce them to figures."""
    work.mkdir(parents=True, exist_ok=True)
    jobs = [(seed, pruner) for seed in range(args.seeds) for pruner in ("none", "rung")]
    with ThreadPoolExecutor(args.jobs) as pool:
        found = dict(zip(jobs, pool.map(lambda job: search(args, work, *job), jobs), strict=True))
    seeds = [
        {
            "full": found[seed, "none"],
            "pruned": found[seed, "rung"],
            "share_of_tokens": found[seed, "rung"]["sae_tokens"] / found[seed, "none"]["sae_tokens"],
            "best_difference": found[seed, "rung"]["best"]["test"] - found[seed, "none"]["best"]["test"],
        }
        for seed in range(args.seeds)
    ]
    best_of_full = [seed["full"]["best"]["test"] for seed in seeds]
    return {
        "settings": {n: getattr(args, n) for n in ("model", "trials", "tokens", "batch_tokens", "seeds")},
        "machine": machine(),
        "seeds": seeds,
        "share_of_tokens": statistics.mean(seed["share_of_tokens"] for seed in seeds),
        "best_difference": statistics.mean(seed["best_difference"] for seed in seeds),
        "spread_of_full": statistics.stdev(best_of_full) if len(best_of_full) > 1 else None,
    }


def table(result: dict[str, Any]) -> str:
    """Return the result as Markdown."""
    lines = [
        "| seed | best, all trials in full | best, with rungs | difference | SAE-tokens | pruned |",
        "|---" * 6 + "|",
    ]
    for number, seed in enumerate(result["seeds"]):
        full, pruned = seed["full"], seed["pruned"]
        lines.append(
            f"| {number} | {full['best']['test']:.4f} ({full['winner']}) | {pruned['best']['test']:.4f} "
            f"({pruned['winner']}) | {seed['best_difference']:+.4f} | {100 * seed['share_of_tokens']:.0f}% "
            f"| {pruned['pruned']} of {result['settings']['trials']} |"
        )
    spread = result["spread_of_full"]
    noise = "" if spread is None else f"; standard deviation of the full searches' best between seeds {spread:.4f}"
    lines += [
        "",
        f"Mean: {100 * result['share_of_tokens']:.0f}% of the SAE-tokens, best {METRIC} "
        f"{result['best_difference']:+.4f}{noise}.",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="builtin", help="stories: ../shared stories260K, d_sae 1024")
    parser.add_argument("--trials", type=int, default=64, help="trials of each search (default: 64)")
    parser.add_argument("--tokens", type=int, default=200_000, help="training tokens of a full trial (default: 200k)")
    parser.add_argument("--batch-tokens", type=int, default=1024, help="tokens of a batch (default: 1024)")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of data, weights and sampler (default: 3)")
    parser.add_argument("--jobs", type=int, default=1, help="searches at once, each on its share of the cores")
    parser.add_argument("--work-dir", type=Path, help="where the run directories go, and are resumed")
    parser.add_argument("--quick", action="store_true", help="ten short trials, one seed: checks that everything runs")
    parser.add_argument("--json", type=Path, help="write the result here")
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    args = parser.parse_args()
    if args.quick:
        args.trials, args.tokens, args.batch_tokens, args.seeds = 10, 20_480, 512, 1
    with tempfile.TemporaryDirectory() as temporary:
        result = compare(args, args.work_dir.resolve() if args.work_dir else Path(temporary))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    print(table(result) if args.markdown else json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
