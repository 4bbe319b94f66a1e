"""What every command shares: its parser and common arguments, how it prints, and the code with which it ends."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, TextIO, TypeAlias

from saesweep.messages import masked, printable

if TYPE_CHECKING:
    Subparsers: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]

DONE = 0
BUG = 1
MISTAKE = 2
INTERRUPTED = 130
BROKEN_PIPE = 141
"""128 + SIGPIPE, what a shell reports of a program that writes to a closed pipe."""


def say(text: object, *, file: TextIO | None = None, flush: bool = False) -> None:
    """Print a line (or several) to standard output, or to `file`."""
    print(printable(masked(str(text))), file=sys.stdout if file is None else file, flush=flush)


def new_parser(commands: Subparsers, name: str, *, summary: str, examples: str) -> argparse.ArgumentParser:
    """Return the parser of one command, its examples below the options."""
    parser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--plugin",
        metavar="MODULE",
        action="append",
        default=[],
        help="import this module, or Python file, first: it may register architectures, metrics and trackers",
    )
    return parser


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """Add `--set PATH=VALUE`."""
    parser.add_argument(
        "--set",
        dest="overrides",
        metavar="PATH=VALUE",
        action="append",
        default=[],
        help="override one value of the file, such as --set base.lr=1e-4; may be given several times",
    )
