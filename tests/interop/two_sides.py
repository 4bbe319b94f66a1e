"""The command line of a check with two sides: one environment makes files, the other one reads and checks them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path


def make_or_check(description: str | None, *, make: Callable[[Path], object], check: Callable[[Path], int]) -> int:
    """Parse `--make FOLDER` or `--check FOLDER`, do it, and return the exit code.

    Args:
        description: For `--help`.
        make: Writes the files.
        check: Reads them, says what it finds, and returns how much is wrong.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument("--make", type=Path, metavar="FOLDER")
    chosen.add_argument("--check", type=Path, metavar="FOLDER")
    arguments = parser.parse_args()
    if arguments.make is not None:
        make(arguments.make)
        return 0
    misses = check(arguments.check)
    print(f"{misses} differences")
    return int(misses > 0)
