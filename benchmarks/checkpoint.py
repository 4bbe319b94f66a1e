"""What checkpoints cost: the share of training time, and how fast they reach the disk.

    OMP_NUM_THREADS=1 python benchmarks/checkpoint.py --saes 16 --d-in 512 --d-sae 1024

Writes checkpoints of a cohort, first with training waiting and then in the background while products like a training step's go
on, and prints for each the time that was lost, MB/s, and the interval at which the counted cost is 2% of the time. The
clocked loss compares steps before and during a write: on a machine that others use too, it is mostly their doing.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from saesweep.cohort import Slot
from saesweep.engines.records import Place
from saesweep.runs import CheckpointStore, CheckpointWriter
from saesweep.runs.checkpoint_writer import COST_SHARE, MIN_SECONDS
from saesweep.specs import BaseRun
from saesweep.worker.checkpoint import slots_to_save


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--saes", type=int, default=16)
    parser.add_argument("--d-in", type=int, default=512)
    parser.add_argument("--d-sae", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to write (default: a temporary folder)")
    args = parser.parse_args()
    slots = {number: [_slot(number, args.d_in, args.d_sae)] for number in range(args.saes)}
    metas, tensors = slots_to_save(slots, {}, {n: Place(number=n, slot=n, params={}) for n in slots})
    n_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    print(f"{args.saes} SAEs of {args.d_in} x {args.d_sae}: {n_bytes / 1e6:.0f} MB, {torch.get_num_threads()} threads")
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        for in_background in (False, True):
            writer = CheckpointWriter(CheckpointStore(Path(folder)), in_background=in_background, min_seconds=None)
            found = []
            for number in range(args.rounds):
                before = _step_seconds(slots)
                begun = time.monotonic()
                writer.save(number + 1, 0, {"slots": metas}, tensors)
                stood_still, during = time.monotonic() - begun, 0.0
                while not (done := writer.finished()):
                    during += _step_seconds(slots) - before
                found.append((stood_still, max(0.0, during), done[0]))
            writer.close(cancel=False)
            still, slower = (statistics.median(row[i] for row in found) for i in (0, 1))
            seconds = statistics.median(row[2].seconds for row in found)
            cost = statistics.median(row[2].cost_seconds for row in found)
            interval = max(MIN_SECONDS, cost / COST_SHARE)
            print(
                f"{'in the background' if in_background else 'training waits':<18} on disk after {seconds:6.2f} s "
                f"({n_bytes / 1e6 / seconds:5.0f} MB/s); training stood still {still:6.2f} s, steps meanwhile took "
                f"{slower:5.2f} s more; counted cost {cost:5.2f} s: every {interval:5.0f} s, "
                f"{100 * cost / interval:.2f}% of the time as counted, {100 * (still + slower) / interval:.2f}% as clocked"
            )


def _slot(number: int, d_in: int, d_sae: int) -> Slot:
    run = BaseRun.model_validate(
        {"dataset_path": "builtin:synthetic", "sae": {"architecture": "topk", "k": 32, "d_in": d_in, "d_sae": d_sae}}
    )
    return Slot(trial=number, run=run, joined_at_tokens=0, init_seed=number, device="cpu")


def _step_seconds(slots: dict[int, list[Slot]]) -> float:
    """Return the time of work like a training step's: products with the weights of every SAE."""
    begun = time.monotonic()
    for (slot,) in slots.values():
        weight = next(tensor for name, tensor in slot.params.items() if name == "W_enc")
        x = torch.ones(256, weight.shape[0])
        for _ in range(3):
            x @ weight
    return time.monotonic() - begun


if __name__ == "__main__":
    main()
