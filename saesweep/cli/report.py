"""`saesweep report`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from saesweep.cli.command import DONE, echo, new_parser
from saesweep.errors import UserError

if TYPE_CHECKING:
    from saesweep.cli.command import Subparsers

_EXAMPLES = """\
  saesweep report runs/quickstart                          report.html, features.html and PNGs in the run directory
  saesweep report runs/gemma_l12 --no-features             only from what the run has logged: no model is loaded
  saesweep report runs/quickstart --latents 12,873 --to my_report
"""


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = new_parser(
        commands,
        "report",
        summary="write a run's plots and its winner's features as HTML pages that need no network",
        examples=_EXAMPLES,
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="the run directory, finished or still going")
    parser.add_argument("--to", metavar="DIR", type=Path, help="where the files go (default: the run directory)")
    parser.add_argument("--no-features", action="store_true", help="leave out the feature page, which runs the model")
    parser.add_argument(
        "--no-png", action="store_true", help="leave out the PNG files, which a Chrome or Chromium draws"
    )
    parser.add_argument(
        "--latents", metavar="N,N,...", default="", help="latents that come with examples even where not all have room"
    )
    parser.add_argument(
        "--feature-tokens", metavar="N", type=int, default=200_000, help="held-out tokens to look at (default: 200000)"
    )
    parser.add_argument(
        "--allow-code-execution",
        action="store_true",
        help="for the feature page, load the model with arguments that run code, where the run's experiment allows it",
    )
    parser.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Write the report."""
    if args.feature_tokens < 1:
        raise UserError(f"--feature-tokens: must be at least 1, not {args.feature_tokens}")
    latents = latents_of(args.latents)

    from saesweep.report import write_report

    report = write_report(
        args.run,
        to=args.to,
        features=not args.no_features,
        pngs=not args.no_png,
        latents=latents,
        feature_tokens=args.feature_tokens,
        allow_code_execution=args.allow_code_execution,
    )
    echo(f"wrote {report.page}")
    if report.features is not None:
        echo(f"wrote {report.features}")
    if report.pngs:
        echo(f"wrote {len(report.pngs)} plots to {report.pngs[0].parent}")
    for note in report.notes:
        echo(f"note: {note}")
    return DONE


def latents_of(text: str) -> list[int]:
    """Return the numbers of `--latents`.

    Raises:
        UserError: It is no list of numbers.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isdecimal() for part in parts):
        raise UserError(f"--latents: {text!r} is no list of numbers such as 12,873")
    return [int(part) for part in parts]
