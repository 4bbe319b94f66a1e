"""Damages every kind of file that saesweep reads, and reads it: `python -m tests.fuzz --inputs 20000 --seed 0`.

Each input is read, or refused with one clean message. Anything else (a traceback, a file touched, a program started, a
network called, a pickle opened) is printed once for each place where it happens, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.run import fuzz, shares
from tests.fuzz.run_directories import RUN_TARGETS, RunDirectories
from tests.fuzz.targets import World


def main() -> int:
    """Run every target and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=20_000, help="in all (default: 20000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", help="only this one")
    args = parser.parse_args()
    failed, total, began = 0, 0, time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        worlds: dict[bool, World | RunDirectories] = {}
        for name, inputs in shares(args.inputs, args.target).items():
            of_runs = name in RUN_TARGETS
            if of_runs not in worlds:
                worlds[of_runs] = RunDirectories(Path(scratch) / "runs") if of_runs else World(Path(scratch) / "world")
            started = time.monotonic()
            count, failures = fuzz(name, worlds[of_runs], inputs, args.seed)
            total, failed = total + count, failed + len(failures)
            verdict = f"{len(failures)} failures" if failures else "ok"
            print(f"{name:20} {count:6} inputs, {time.monotonic() - started:6.1f} s: {verdict}", flush=True)
            print("\n".join(failures), end="", flush=True)
    print(f"{total} inputs in {time.monotonic() - began:.0f} s, {failed} failures")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
