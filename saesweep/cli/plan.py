"""`saesweep plan`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from saesweep.cli.command import DONE, add_overrides, echo, new_parser

if TYPE_CHECKING:
    from saesweep.cli.command import Subparsers

_EXAMPLES = """\
  saesweep plan experiments/gemma_l12.yaml
  saesweep plan my_experiment.yaml --set cohort.size=8 --json
  saesweep plan experiments/quickstart.yaml --calibrate
"""


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = new_parser(
        commands,
        "plan",
        summary="show what would run (sampled trials, memory, tokens) without loading weights",
        examples=_EXAMPLES,
    )
    parser.add_argument("experiment", metavar="EXPERIMENT", type=Path, help="the experiment file (YAML)")
    add_overrides(parser)
    parser.add_argument(
        "--calibrate",
        action="store_true",
        help="load the model and time a few seconds of the real thing: how long the search takes, language model included",
    )
    parser.add_argument("--json", action="store_true", help="print the plan as JSON")
    parser.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Print the plan."""
    from saesweep.at_hand import check_before_run
    from saesweep.experiment import load_experiment
    from saesweep.planning.plan import plan

    made = plan(
        load_experiment(args.experiment, overrides=args.overrides, also=(check_before_run,)),
        with_calibration=args.calibrate,
    )
    echo(json.dumps(made.to_json(), indent=2) if args.json else "\n".join(made.lines()))
    return DONE
