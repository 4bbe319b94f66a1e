"""Printing what commands say: file names, metadata and messages may hold anything, and nothing in them steers a terminal."""

from __future__ import annotations

import sys
from typing import TextIO

from saesweep.messages import masked, printable


def say(text: object, *, file: TextIO | None = None, flush: bool = False) -> None:
    """Print a line (or several) to standard output, or to `file`."""
    print(printable(masked(str(text))), file=sys.stdout if file is None else file, flush=flush)
