"""A sweep on a real model from end to end, measuring included: seconds against SAELens' runner, one SAE after the other.

    make bench-env                                            # once: SAELens, in an environment of its own
    .venv/bin/python benchmarks/real_model.py smollm2 wikitext.txt --hook model.layers.12 --d-sae 4608 --saes 8

Default settings but for those given here: TopK SAEs at several k from one stream. saesweep's seconds are those of the whole
process, held-out measuring, exports and the test part included; SAELens' are of one SAE, which it does not measure, times
their number. Exits 1 where saesweep is less than 7 times as fast, or measures for more than 15% of its time.
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
sys.path.insert(0, str(ROOT))

from sweep_setup import peer_settings, write_training_text

TIMES, MEASURING_SHARE = 7.0, 0.15


def experiment(args: argparse.Namespace) -> dict[str, Any]:
    """Return the sweep: as many TopK SAEs as asked for, k spread over an octave and a half."""
    return {
        "name": "real_model",
        "base": {
            "model_name": str(args.model),
            "hook_name": args.hook,
            "model_from_pretrained_kwargs": {"dtype": args.dtype},
            "dataset_path": str(args.text),
            "context_size": args.context_size,
            "training_tokens": args.tokens,
            "max_activation_norm_multiple": 10,
            "device": "cpu",
            "lr": 1e-3,
            "sae": {"architecture": "topk", "d_sae": args.d_sae, "k": 16},
        },
        "space": {"sae.k": {"choice": [16 + 6 * number for number in range(args.saes)]}},
        "search": {"trials": args.saes, "sampler": "grid", "pruner": "none"},
        "cohort": {"size": args.saes},
        "evaluation": {"select_tokens": args.held_out_tokens, "test_tokens": args.held_out_tokens},
    }


def ours(file: Path, run: Path) -> tuple[float, dict[str, float]]:
    """Return the seconds of a whole run, and where they went."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "saesweep", "run", str(file), "--run-dir", str(run), "--display", "none"],
        env=env,
        check=True,
    )
    seconds = time.perf_counter() - started
    costs: dict[str, float] = json.loads((run / "costs.json").read_text())
    return seconds, costs


def theirs(python: str, cfg: dict[str, Any], work: Path) -> float:
    """Return the seconds that SAELens' runner takes for one of the SAEs, its imports left out."""
    trial = {"number": 0, "architecture": "topk", "seed": 0, "folder": str(work / "saelens"), "cfg": cfg}
    job = work / "saelens.job"
    job.write_text(json.dumps({"trials": [trial]}))
    command = [python, str(ROOT / "benchmarks" / "sweep_worker.py"), "saelens_runner", str(job)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode != 0:
        raise SystemExit(f"SAELens' runner failed:\n{process.stderr[-3000:]}")
    found = json.loads(process.stdout)
    return float(sum(found["trials"][0]["seconds"].values()))


def main() -> int:
    """Run both, print, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a folder")
    parser.add_argument("text", type=Path, help="a file of text")
    parser.add_argument("--hook", required=True)
    parser.add_argument("--saes", type=int, default=8)
    parser.add_argument("--d-sae", type=int, default=4608)
    parser.add_argument("--tokens", type=int, default=102_400, help="training tokens of each (default: 102,400)")
    parser.add_argument("--held-out-tokens", type=int, default=4096, help="of each held-out part (default: 4,096)")
    parser.add_argument("--context-size", type=int, default=256)
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="of the language model, for both sides; many CPUs have no products for bfloat16 (default: float32)",
    )
    parser.add_argument("--peer-python", default=".venv-bench/bin/python", help="interpreter with SAELens installed")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        tree = experiment(args)
        file = work / "experiment.yaml"
        file.write_text(json.dumps(tree))
        seconds, costs = ours(file, work / "run")
        measuring = (costs["measuring_rungs"] + costs["measuring_ends"]) / sum(costs.values())
        print(f"saesweep: {args.saes} SAEs in {seconds:.0f} s, {measuring:.0%} of it measuring", flush=True)
        parts = ", ".join(f"{name} {spent:.0f} s" for name, spent in costs.items())
        print(f"  {parts}; the rest is starting and ending the process", flush=True)
        dataset = write_training_text(tree, work / "text")
        one = theirs(args.peer_python, peer_settings(work / "run", dataset)[0], work)
    times = args.saes * one / seconds
    print(f"SAELens' runner: {one:.0f} s for one, {args.saes * one:.0f} s for {args.saes}: {times:.1f}x")
    return int(times < TIMES or measuring > MEASURING_SHARE)


if __name__ == "__main__":
    sys.exit(main())
