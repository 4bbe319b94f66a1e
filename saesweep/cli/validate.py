"""`saesweep validate`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from saesweep.cli.command import DONE, MISTAKE, add_overrides, echo, new_parser
from saesweep.errors import UserError

if TYPE_CHECKING:
    from saesweep.cli.command import Subparsers
    from saesweep.experiment import Experiment

_EXAMPLES = """\
  saesweep validate my_experiment.yaml
  saesweep validate experiments/*.yaml
"""


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = new_parser(
        commands, "validate", summary="check experiment files: every mistake at once, with its line", examples=_EXAMPLES
    )
    parser.add_argument("files", metavar="FILE", type=Path, nargs="+", help="experiment files (YAML)")
    add_overrides(parser)
    parser.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Check all files; one bad file does not keep the others from being checked."""
    from saesweep.at_hand import check_before_run
    from saesweep.experiment import load_experiment

    code = DONE
    for path in args.files:
        try:
            experiment = load_experiment(path, overrides=args.overrides, also=(check_before_run,))
        except UserError as error:
            echo(error, file=sys.stderr)
            code = MISTAKE
        else:
            echo(f"{path}: ok: {_counts(experiment)}")
            for warning in experiment.warnings:
                echo(f"{path}: warning: {warning}", file=sys.stderr)
    return code


def _counts(experiment: Experiment) -> str:
    parameters = len({parameter.path for parameter in experiment.parameters()})
    return ", ".join(
        [
            _plural(experiment.n_trials, "trial"),
            f"{_plural(len(experiment.architectures), 'architecture')} ({', '.join(experiment.architectures)})",
            _plural(parameters, "searched parameter"),
        ]
    )


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"
