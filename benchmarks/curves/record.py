"""Records learning curves of trials that nothing prunes: in one pass per seed, all trials train side by side.

    python benchmarks/curves/record.py tiny_lm                 # all seeds, one after the other
    python benchmarks/curves/record.py tiny_lm --seeds 1 2     # so that two processes can share the work
    python benchmarks/curves/record.py tiny_lm --no-short      # the short runs later

A pass is kept in --parts as soon as it has ended. A pass trains only what no earlier one of its seed has; SOURCE.json.gz
holds all that there is.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from datetime import datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from benchmarks.curves.curves import HERE, joined, load, path_of, save
from benchmarks.curves.grid import TrialPlan, trials
from benchmarks.curves.recorder import Recording, record
from benchmarks.curves.sources import SOURCES, Source


def main() -> None:
    """Record what is missing, and join it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", choices=list(SOURCES))
    parser.add_argument("--seeds", type=int, nargs="+", help="passes to record; all of the source when left out")
    parser.add_argument("--parts", type=Path, default=HERE / "parts", help="where finished passes are kept")
    parser.add_argument("--out", type=Path, default=HERE, help="where SOURCE.json.gz is written")
    parser.add_argument("--no-short", action="store_true", help="leave out the complete short runs this time")
    args = parser.parse_args()
    torch.set_num_threads(1)
    source = SOURCES[args.source]
    for seed in args.seeds or source.grid.seeds:
        recording = missing(source, seed, args.parts, with_short=not args.no_short)
        if recording.plans:
            part = path_of(f"{source.name}-{seed}-{len(parts_of(source, seed, args.parts))}", args.parts)
            print(f"{part.name}: {len(recording.plans)} trials", flush=True)
            save(record(recording, lambda text: print(f"  {text}", flush=True)), part)
        else:
            print(f"{source.name}, seed {seed}: nothing is missing", flush=True)
        join(source, args.parts, args.out)


def missing(source: Source, seed: int, parts: Path, *, with_short: bool = True) -> Recording:
    """Return a pass over the trials of a seed that no finished pass has."""
    there = {
        TrialPlan(c.architecture, c.lr, c.setting, c.target_l0, c.length)
        for path in parts_of(source, seed, parts)
        for c in load(path).curves
    }
    return Recording(
        source=source.name,
        seed=seed,
        tree=source.tree(),
        plans=tuple(p for p in trials(source.grid, seed) if p not in there and (with_short or p.length == 1.0)),
        targets=source.grid.targets,
        ce_shares=source.ce_shares,
    )


def parts_of(source: Source, seed: int, parts: Path) -> list[Path]:
    """Return the finished passes of a seed, in the order in which they were recorded."""
    return sorted(parts.glob(f"{source.name}-{seed}-*.json.gz"))


def join(source: Source, parts: Path, out: Path) -> None:
    """Write one file of all passes there are."""
    found = [load(path) for seed in source.grid.seeds for path in parts_of(source, seed, parts)]
    if found:
        save(joined(found), path_of(source.name, out))
        at = datetime.fromtimestamp(time.time()).strftime("%H:%M:%S")
        seeds = sorted({curve.seed for part in found for curve in part.curves})
        print(
            f"{at} {path_of(source.name, out).name}: {sum(len(p.curves) for p in found)} trials, seeds {seeds}",
            flush=True,
        )


if __name__ == "__main__":
    main()
