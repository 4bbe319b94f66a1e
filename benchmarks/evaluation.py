"""Time to evaluate several SAEs: saesweep all at once, SAELens' `run_evals` one after another, in turn.

    make bench-env
    .venv-bench/bin/python benchmarks/evaluation.py --saes 8 --d-sae 512

The same SAEs, read from the same folders, on the same tokens of the built-in language model. Both compute cross-entropy and KL
of spliced forward passes, L0, L1, norms, cosine, explained variance and MSE; saesweep also takes standard errors over contexts.
Nothing is kept from one measurement to the next: saesweep's time holds the clean and the ablated pass. After one round that does
not count, the tools take turns; the share is the median over rounds. Exits 1 where it is above 0.35, or where a metric differs.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sae_lens import SAE

from saesweep.saes import Knobs, Normalizer, architecture_for, load_sae_folder, save_sae_folder
from saesweep.specs.architectures import spec_class
from tests.interop.saelens_evals import D_IN, METRIC_BOUND, PAIRS, PER_BATCH, World

LARGEST_SHARE = 0.35
ARCHITECTURES = ("topk", "standard", "jumprelu", "gated")


def write_sae(folder: Path, architecture: str, d_sae: int, x_BD: torch.Tensor, seed: int) -> Path:
    """Write an SAE after a few steps of training; its time does not depend on how good it is."""
    options: dict[str, Any] = {"k": 16} if architecture == "topk" else {}
    implementation = architecture_for(spec_class(architecture)(d_in=D_IN, d_sae=d_sae, **options))
    params = implementation.init(torch.Generator().manual_seed(seed))
    leaves = {name: tensor.requires_grad_() for name, tensor in params.items()}
    optimizer = torch.optim.Adam(leaves.values(), lr=1e-3)
    knobs = Knobs(l1_coefficient=1.0, l0_coefficient=1.0, k=16.0)
    for step in range(20):
        rows_B = torch.randint(len(x_BD), (256,), generator=torch.Generator().manual_seed(step))
        loss = implementation.forward(leaves, x_BD[rows_B], knobs).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        implementation.constrain_(leaves)
    trained = {name: tensor.detach() for name, tensor in leaves.items()}
    save_sae_folder(folder, implementation.export(trained, Normalizer(mode="none")), sparsity_F=None)
    return folder


def worst_difference(ours: list[dict[str, float]], theirs: list[dict[str, Any]]) -> tuple[float, str]:
    """Return the largest relative difference of a metric that both tools have, and its name."""
    found = []
    for mine, other in zip(ours, theirs, strict=True):
        for name, (group, key) in PAIRS.items():
            if name != "relative_reconstruction_bias":  # SAELens averages this ratio over batches
                value, reference = mine[name], float(other[group][key])
                found.append((abs(value - reference) / max(1.0, abs(reference)), name))
    return max(found)


def main() -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--saes", type=int, default=8, help="SAEs to evaluate (default: 8)")
    parser.add_argument("--d-sae", type=int, default=512, help="latents of each (default: 512)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count (default: 5)")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (default: 2)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore")
    world = World()
    excluded = (world.bos,)
    seconds: dict[str, list[float]] = {"saesweep": [], "SAELens": []}
    with tempfile.TemporaryDirectory() as root:
        folders = [
            write_sae(Path(root) / str(i), ARCHITECTURES[i % len(ARCHITECTURES)], args.d_sae, world.x_BD, seed=i)
            for i in range(args.saes)
        ]
        ours = [load_sae_folder(folder) for folder in folders]
        theirs = [SAE.load_from_disk(folder) for folder in folders]
    difference = (0.0, "")
    for _ in range(1 + args.rounds):
        started = time.perf_counter()
        mine = world.measure(ours, excluded, spread=True)
        seconds["saesweep"].append(time.perf_counter() - started)
        started = time.perf_counter()
        other = [world.run_evals(sae, excluded, per_batch=PER_BATCH) for sae in theirs]
        seconds["SAELens"].append(time.perf_counter() - started)
        difference = max(difference, worst_difference(mine, other))
    shares = [a / b for a, b in zip(*(values[1:] for values in seconds.values()), strict=True)]
    medians = ", ".join(f"{name} {statistics.median(values[1:]):.2f} s" for name, values in seconds.items())
    share = statistics.median(shares)
    print(
        f"{args.saes} SAEs (d_sae {args.d_sae}) on {world.tokens_CT.numel()} tokens, {args.threads} threads: {medians}"
    )
    print(f"share {share:.2f} (rounds: {', '.join(f'{s:.2f}' for s in shares)}); at most {LARGEST_SHARE} is wanted")
    print(f"largest difference of a metric: {difference[0]:.1e} ({difference[1]}); at most {METRIC_BOUND} is wanted")
    return int(share > LARGEST_SHARE or difference[0] > METRIC_BOUND)


if __name__ == "__main__":
    sys.exit(main())
