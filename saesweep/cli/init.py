"""`saesweep init`."""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from saesweep.cli.command import DONE, echo, new_parser
from saesweep.errors import UserError

if TYPE_CHECKING:
    from saesweep.cli.command import Subparsers

SCHEMA_FILE = "saesweep.schema.json"
_EXAMPLES = """\
  saesweep init
  saesweep init experiments/my_experiment.yaml
"""


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = new_parser(commands, "init", summary="write a commented experiment to start from", examples=_EXAMPLES)
    parser.add_argument(
        "path",
        metavar="PATH",
        type=Path,
        nargs="?",
        default=Path("experiment.yaml"),
        help="the file to write; an existing one is never touched (default: experiment.yaml)",
    )
    parser.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Write the file and say what to do with it."""
    from saesweep.experiment import experiment_schema
    from saesweep.experiment.authoring import template

    schema = args.path.with_name(SCHEMA_FILE)
    try:
        args.path.parent.mkdir(parents=True, exist_ok=True)
        with args.path.open("x", encoding="utf-8") as file:  # x: two people cannot both create it
            file.write(f"# yaml-language-server: $schema={SCHEMA_FILE}\n{template()}")
        if not schema.exists():
            schema.write_text(json.dumps(experiment_schema(), indent=2) + "\n", encoding="utf-8")
    except FileExistsError:
        raise UserError(f"{args.path}: exists already and is left as it is; name a new file") from None
    except OSError as error:
        raise UserError(f"{args.path}: cannot be written ({error.strerror}); name another file") from error
    quoted = shlex.quote(str(args.path))
    echo(
        f"wrote {args.path}, and {schema} for editors that complete YAML\nnext:\n  saesweep validate {quoted}\n  saesweep run {quoted}"
    )
    return DONE
