"""`saesweep leaderboard`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from saesweep.cli.command import DONE, echo, new_parser

if TYPE_CHECKING:
    from saesweep.cli.command import Subparsers

_EXAMPLES = """\
  saesweep leaderboard runs/quickstart
  saesweep leaderboard runs/gemma_l12 --watch
  saesweep leaderboard runs/quickstart --details
  saesweep leaderboard runs/quickstart --json | jq '.rows[0].params'
"""


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = new_parser(
        commands, "leaderboard", summary="print the leaderboard of a run, finished or still going", examples=_EXAMPLES
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="a run directory, or a leaderboard.json")
    parser.add_argument(
        "--watch",
        action="store_true",
        help="show it in place with the progress of the run until that ends, also of a run in another terminal; off a terminal, "
        "print it anew when it changes",
    )
    parser.add_argument(
        "--details",
        action="store_true",
        help="also print what was learned: the best so far, importance of each parameter, choices compared at equal L0",
    )
    parser.add_argument("--json", action="store_true", help="print it as JSON, one object per line")
    parser.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Print the leaderboard."""
    from saesweep.display.details import details_lines
    from saesweep.display.saved import read_leaderboard, show_leaderboard
    from saesweep.display.text import encodable
    from saesweep.display.watch import watch_leaderboard
    from saesweep.errors import UserError

    if args.details and args.json:
        raise UserError("--details: is text; leave --json out")

    if args.watch:
        watch_leaderboard(args.run, sys.stdout, as_json=args.json)
    else:
        show_leaderboard(read_leaderboard(args.run), sys.stdout, as_json=args.json)
    if args.details:
        if not args.run.is_dir():
            raise UserError(f"--details: {args.run} is no run directory")
        for line in ["", *details_lines(args.run, read_leaderboard(args.run))]:
            echo(encodable(line, sys.stdout.encoding))
    return DONE
