"""The console script: parses the arguments, runs one command, turns failures into messages and exit codes."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import traceback
from collections.abc import Sequence

from saesweep.cli import (
    cache_activations,
    evaluate,
    export,
    features,
    hooks,
    init,
    leaderboard,
    plan,
    pretokenize,
    pull,
    push,
    report,
    run,
    schema,
    train,
    validate,
)
from saesweep.cli.command import BROKEN_PIPE, BUG, INTERRUPTED, MISTAKE, Parser, echo
from saesweep.errors import UserError, fault_of
from saesweep.messages import presentable
from saesweep.plugins import fault_of_plugin, load_plugin
from saesweep.version import __version__

_COMMANDS = (
    run,
    train,
    plan,
    validate,
    schema,
    init,
    leaderboard,
    report,
    evaluate,
    export,
    features,
    push,
    pull,
    hooks,
    pretokenize,
    cache_activations,
)
_EPILOG = """\
start here:
  saesweep init my_experiment.yaml        a commented experiment to edit
  saesweep validate my_experiment.yaml    every mistake at once, with its line
  saesweep plan my_experiment.yaml        what would run: trials, memory, tokens
  saesweep run my_experiment.yaml         train, rank, export; run again to resume

exit codes: 0 done, 1 no feasible trial finished or more failed than allowed, 2 a mistake in the file or the arguments, 130 interrupted
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = Parser(
        prog="saesweep",
        description="Sweep sparse autoencoders over one stream of language-model activations and export the best one.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"saesweep {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for command in _COMMANDS:
        command.add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        argv: The arguments without the program's name; those of the process when None.

    Raises:
        SystemExit: From argparse: code 2 after a wrong argument, 0 after `--help` and `--version`.
    """
    if argv is None:  # the process is this command's
        _open_closed_streams()
    parser = build_parser()
    try:
        _refuse_empty(sys.argv[1:] if argv is None else argv)
        _load_plugins(argv)
        args = parser.parse_args(argv)
        if not hasattr(args, "execute"):
            parser.print_help(sys.stderr)
            return MISTAKE
        code: int = args.execute(args)
        sys.stdout.flush()
        return code
    except UserError as error:
        _echo_error(error)
        return MISTAKE
    except KeyboardInterrupt as stopped:
        _echo_error(str(stopped) or "interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (`| head`) has left. Without this the interpreter fails once more when it flushes on exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except Exception as error:
        if (fault := fault_of(error)) is not None:  # no command need look out for the disk, permissions and locks
            _echo_error(fault)
            return MISTAKE
        if (fault := fault_of_plugin(error)) is not None:
            _echo_error(presentable(fault))
            return MISTAKE
        _echo_error(presentable(traceback.format_exc()))
        _echo_error(f"this is a bug in saesweep {__version__}: please report it with the traceback above")
        return BUG


def _open_closed_streams() -> None:
    """Give streams that were closed (`>&-`) a place that takes everything.

    A run that writes no output still runs, and no file that it opens gets their numbers, under which libraries print.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - for as long as the process lives


def _echo_error(message: object) -> None:
    """Say what went wrong; where even that cannot be written (a full disk, a reader that has left) the exit code says it."""
    with contextlib.suppress(OSError):
        echo(message, file=sys.stderr)


def _refuse_empty(argv: Sequence[str]) -> None:
    """Refuse an argument without a character: as a path it would mean the current folder.

    Raises:
        UserError: There is one.
    """
    for place, word in enumerate(argv):
        if not word.strip():
            after = f" after {argv[place - 1]}" if place else ""
            raise UserError(f"an argument is empty{after}; is a shell variable not set?")


def _load_plugins(argv: Sequence[str] | None) -> None:
    """Import what `--plugin` names, before the arguments are read: an architecture of a plugin brings flags of its own."""
    first = argparse.ArgumentParser(prog="saesweep", add_help=False, allow_abbrev=False)
    first.add_argument("--plugin", action="append", default=[])
    for plugin in first.parse_known_args(argv)[0].plugin:
        load_plugin(plugin)
