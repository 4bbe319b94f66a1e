"""`saesweep run`."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from saesweep.cli.command import add_overrides, echo, new_parser
from saesweep.display.choose import DISPLAY_KINDS, DisplayKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from saesweep.cli.command import Subparsers
    from saesweep.experiment import Experiment

_EXAMPLES = """\
  saesweep run experiments/quickstart.yaml
  saesweep run experiments/gemma_l12.yaml --set search.trials=16 --set base.training_tokens=50M
  saesweep run my_experiment.yaml --run-dir /data/runs/first --display plain 2>&1 | tee run.log

The same command again resumes an interrupted run. The first Ctrl-C during training finishes the
block and saves; a second one, or one during set-up, stops now. The work since the last checkpoint is done again.
"""


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = new_parser(
        commands, "run", summary="run an experiment, or resume it, and export the best SAE", examples=_EXAMPLES
    )
    parser.add_argument("experiment", metavar="EXPERIMENT", type=Path, help="the experiment file (YAML)")
    add_overrides(parser)
    add_run_dir(parser, "runs/<name>")
    parser.add_argument(
        "--display",
        choices=DISPLAY_KINDS,
        default="auto",
        help="live: a table that updates in place; plain: lines; json: one object per event; none: nothing; "
        "auto (default): $SAESWEEP_DISPLAY, else live on a terminal and plain elsewhere",
    )
    parser.add_argument(
        "--verbose",
        action="store_true",
        help="also say what was chosen and why (cohort size, memory, kernels), when trials start and checkpoints are saved",
    )
    parser.set_defaults(execute=execute)


def add_run_dir(parser: argparse.ArgumentParser, default: str) -> None:
    """Add `--run-dir`."""
    parser.add_argument("--run-dir", metavar="DIR", type=Path, help=f"where everything goes (default: {default})")


def execute(args: argparse.Namespace) -> int:
    """Run the experiment."""
    return run_with_display(
        args.experiment, run_dir=args.run_dir, overrides=args.overrides, display=args.display, verbose=args.verbose
    )


def run_with_display(
    experiment: Path | Experiment,
    *,
    run_dir: Path | None,
    display: DisplayKind,
    verbose: bool,
    overrides: Sequence[str] = (),
) -> int:
    """Run an experiment on the terminal and return the exit code."""
    from saesweep.api import run

    try:
        result = run(experiment, run_dir=run_dir, overrides=overrides, display=display, verbose=verbose)
    except KeyboardInterrupt as stopped:
        if str(stopped):  # it says how to resume
            raise
        # Before training begins, or once everything is done and being shown.
        command = shlex.join(["saesweep", *sys.argv[1:]])
        raise KeyboardInterrupt(f"interrupted; continue with: {command}") from None
    if result.resume_command is not None and display == "none":
        echo(f"interrupted; resume with: {result.resume_command}", file=sys.stderr)
    _leave_uploads(result.exit_code)
    return result.exit_code


def _leave_uploads(exit_code: int) -> None:
    """End the process where Weights & Biases still waits for the network: its exit hook would wait as long as it takes.

    Everything of ours is on disk by now, and the display has said how to upload the rest.
    """
    from saesweep.tracking import abandon_uploads, is_uploading

    if is_uploading():
        abandon_uploads()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(exit_code)
