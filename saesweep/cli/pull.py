"""`saesweep pull`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from saesweep.cli.command import DONE, echo, new_parser

if TYPE_CHECKING:
    from saesweep.cli.command import Subparsers

_EXAMPLES = """\
  saesweep pull me/gemma-saes/blocks.12.hook_resid_post/best --to my_sae
  saesweep pull google/gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82 --to scope

`eval`, from_cfg, from_pretrained_path and evaluation.references read a Hub id as it is; a copy is for working without a network.
"""


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = new_parser(commands, "pull", summary="download a published SAE from the Hub", examples=_EXAMPLES)
    parser.add_argument("source", metavar="USER/REPO/FOLDER", help="the SAE's place on the Hub")
    parser.add_argument("--to", metavar="DIR", type=Path, required=True, help="the folder to make")
    parser.add_argument("--revision", metavar="NAME", help="branch, tag or commit (default: main)")
    parser.add_argument("--force", action="store_true", help="replace an SAE that is already in DIR")
    parser.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Download."""
    from saesweep.cli.export import check_target
    from saesweep.publish import pull

    check_target(args.to, None, args.force)
    sae = pull(args.source, args.to, revision=args.revision)
    echo(f"copied {args.source} ({sae.architecture}, {sae.d_in} to {sae.d_sae}) to {args.to}")
    return DONE
