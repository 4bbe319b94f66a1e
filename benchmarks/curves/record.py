"""Records learning curves of trials that nothing prunes: one pass per seed, in which all trials train side by side.

    python benchmarks/curves/record.py tiny_lm                 # all seeds, one after the other
    python benchmarks/curves/record.py tiny_lm --seeds 1 2     # so that two processes can share the work

A pass is kept in --parts as soon as it has ended and is not repeated; SOURCE.json.gz holds all passes there are.
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
from benchmarks.curves.grid import trials
from benchmarks.curves.recorder import Recording, record
from benchmarks.curves.sources import SOURCES, Source


def main() -> None:
    """Record what is missing, and join it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", choices=list(SOURCES))
    parser.add_argument("--seeds", type=int, nargs="+", help="passes to record; all of the source when left out")
    parser.add_argument("--parts", type=Path, default=HERE / "parts", help="where finished passes are kept")
    parser.add_argument("--out", type=Path, default=HERE, help="where SOURCE.json.gz is written")
    args = parser.parse_args()
    torch.set_num_threads(1)
    source = SOURCES[args.source]
    for seed in args.seeds or source.grid.seeds:
        part = path_of(f"{source.name}-{seed}", args.parts)
        if part.exists():
            print(f"{part.name}: recorded already", flush=True)
        else:
            print(f"{part.name}: begins", flush=True)
            save(record(recording_of(source, seed), lambda text: print(f"  {text}", flush=True)), part)
        join(source, args.parts, args.out)


def recording_of(source: Source, seed: int) -> Recording:
    """Return what one pass over a source records."""
    return Recording(
        source=source.name,
        seed=seed,
        tree=source.tree(),
        plans=tuple(trials(source.grid, seed)),
        targets=source.grid.targets,
        ce_shares=source.ce_shares,
    )


def join(source: Source, parts: Path, out: Path) -> None:
    """Write one file of all passes there are."""
    paths = [path_of(f"{source.name}-{seed}", parts) for seed in source.grid.seeds]
    found = [load(path) for path in paths if path.exists()]
    if found:
        save(joined(found), path_of(source.name, out))
        at = datetime.fromtimestamp(time.time()).strftime("%H:%M:%S")
        print(f"{at} {path_of(source.name, out).name}: {len(found)} of {len(paths)} passes", flush=True)


if __name__ == "__main__":
    main()
