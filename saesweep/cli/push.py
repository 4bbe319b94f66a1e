"""`saesweep push`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from saesweep.cli.command import DONE, echo, new_parser

if TYPE_CHECKING:
    from saesweep.cli.command import Subparsers

_EXAMPLES = """\
  saesweep push runs/gemma_l12 --repo me/gemma-saes --dry-run      print the files and the model card; no network
  saesweep push runs/gemma_l12 --repo me/gemma-saes                the best SAE, as <hook>/best
  saesweep push runs/gemma_l12 --repo me/gemma-saes --pareto --license mit

The token is that of `hf auth login` or $HF_TOKEN. Others load the SAE with SAELens' SAE.from_pretrained(REPO, FOLDER), or
as base: {from_cfg: REPO/FOLDER}. An interrupted upload resumes where it stopped when the command is run again.
"""


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = new_parser(commands, "push", summary="publish trained SAEs on the Hugging Face Hub", examples=_EXAMPLES)
    parser.add_argument("run", metavar="RUN", type=Path, help="a run directory, or the folder of one exported SAE")
    parser.add_argument("--repo", metavar="USER/NAME", required=True, help="the repository; made if need be")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--pareto", action="store_true", help="every SAE of the Pareto front (default: the best)")
    what.add_argument("--matched", action="store_true", help="the winner at each L0 of objective.matched")
    what.add_argument("--trial", metavar="N", type=int, help="this trial")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--revision", metavar="BRANCH", help="commit to this branch (default: main)")
    parser.add_argument("--license", metavar="ID", dest="licence", help="licence stated on the card, such as mit")
    parser.add_argument(
        "--dry-run", action="store_true", help="only print the model card and the files that would be uploaded"
    )
    parser.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Upload, or list."""
    from saesweep.display.text import encodable
    from saesweep.publish import collect_run, push

    done = push(
        dict(collect_run(args.run, pareto=args.pareto, matched=args.matched, trial=args.trial)),
        args.repo,
        private=args.private,
        revision=args.revision,
        licence=args.licence,
        dry_run=args.dry_run,
    )
    if args.dry_run and done.card is not None:
        echo(encodable(done.card, sys.stdout.encoding))
    for path, size in done.files:
        echo(f"{size:>14,}  {path}")
    for note in done.notes:
        echo(f"note: {note}")
    total = sum(size for _, size in done.files)
    where = f"to {done.repo}" + (f": {done.url}" if done.url else "")
    echo(f"{'would upload' if args.dry_run else 'uploaded'} {len(done.files)} files, {total:,} bytes, {where}")
    return DONE
