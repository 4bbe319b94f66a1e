"""Where `decoder_cosine` is lowest, against the L0 that the true features fire with: SAEs of several k on builtin:synthetic.

    python benchmarks/low_l0.py --d-in 256 --steps 400
    python benchmarks/low_l0.py --d-in 64 --features 256 --latents 128 --true-l0 11 --k 2 4 8 11 16 32 --steps 4000 --lr 2e-3

Prints a table by L0: the metric, how well the true features are recovered, explained variance.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import saesweep

COLUMNS = ("l0", "decoder_cosine", "mcc", "mmcs", "uniqueness", "explained_variance")


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--d-in", type=int, default=256, help="width; random features are nearly orthogonal in a large one"
    )
    parser.add_argument("--features", type=int, default=32, help="true features")
    parser.add_argument("--latents", type=int, help="of each SAE (default: as many as features)")
    parser.add_argument("--true-l0", type=float, default=5.0, help="features active per token")
    parser.add_argument("--scale", type=float, default=0.3, help="of the correlations between features; 0: independent")
    parser.add_argument("--k", type=int, nargs="+", default=[2, 3, 5, 8, 12])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--lr", type=float, default=1e-2)
    parser.add_argument("--replicates", type=int, default=1)
    args = parser.parse_args()
    synthetic = {"num_features": args.features, "firing_probability": {"mean_active": args.true_l0, "exponent": 0.3}}
    if args.scale:
        synthetic["correlation"] = {"rank": 4, "correlation_scale": args.scale}
    tree = {
        "name": "low-l0",
        "base": {
            "model_name": None,
            "hook_name": "synthetic",
            "dataset_path": "builtin:synthetic",
            "synthetic": synthetic,
            "training_tokens": 512 * args.steps,
            "train_batch_size_tokens": 512,
            "lr": args.lr,
            "lr_decay_steps": "40%",
            "device": "cpu",
            "sae": {"architecture": "batchtopk", "d_in": args.d_in, "d_sae": args.latents or args.features},
        },
        "space": {"sae.k": {"choice": args.k}},
        "objective": {"maximize": "mcc"},
        "evaluation": {"select_tokens": 4096, "test_tokens": 2048},
        "search": {"sampler": "grid", "pruner": "none", "replicates": args.replicates},
        "cohort": {"size": len(args.k) * args.replicates},
    }
    with tempfile.TemporaryDirectory() as folder:
        result = saesweep.run(tree, run_dir=Path(folder) / "run")
    print("| k | " + " | ".join(COLUMNS) + " |")
    print("|---" * (1 + len(COLUMNS)) + "|")
    for row in sorted(result.rows, key=lambda row: row.metrics["l0"]):
        print(f"| {row.params['sae.k']} | " + " | ".join(f"{row.metrics[name]:.4f}" for name in COLUMNS) + " |")


if __name__ == "__main__":
    main()
