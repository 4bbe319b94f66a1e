"""`saesweep schema`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from saesweep.cli.command import DONE, echo, new_parser
from saesweep.errors import UserError

if TYPE_CHECKING:
    from saesweep.cli.command import Subparsers

_EXAMPLES = """\
  saesweep schema --output saesweep.schema.json

Editors with a YAML language server then complete and check an experiment that starts with
  # yaml-language-server: $schema=saesweep.schema.json
"""


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = new_parser(commands, "schema", summary="print the JSON Schema of experiment files", examples=_EXAMPLES)
    parser.add_argument("--output", metavar="FILE", type=Path, help="write it to a file instead")
    parser.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Print or write the schema."""
    from saesweep.experiment import experiment_schema

    text = json.dumps(experiment_schema(), indent=2)
    if args.output is None:
        echo(text)
        return DONE
    try:
        args.output.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{args.output}: cannot be written ({error.strerror}); choose another --output") from error
    return DONE
