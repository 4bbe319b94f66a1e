"""What every command shares: its parser and common arguments, how it prints, and the code with which it ends."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn, TextIO, TypeAlias

from saesweep.messages import masked, printable

if TYPE_CHECKING:
    Subparsers: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]

DONE = 0
BUG = 1
MISTAKE = 2
INTERRUPTED = 130
BROKEN_PIPE = 141
"""128 + SIGPIPE, what a shell reports of a program that writes to a closed pipe."""


def echo(text: object, *, file: TextIO | None = None, flush: bool = False) -> None:
    """Print a line (or several) to standard output, or to `file`."""
    print(printable(masked(str(text))), file=sys.stdout if file is None else file, flush=flush)


_CHOICE = re.compile(r"invalid choice: '(.*?)' \(choose from (.*)\)")


class Parser(argparse.ArgumentParser):
    """A parser whose messages name what was probably meant."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the arguments, and end with exit code 2."""
        if match := _CHOICE.search(message):
            from saesweep.messages import did_you_mean

            options = [word.strip("' ") for word in match[2].split(",")]
            longer = [option for option in options if match[1].startswith(option)]  # `evaluate` is no `validate`
            message += did_you_mean(match[1], longer or options)
        elif message.startswith("unrecognized arguments: "):
            message += _hint(message.removeprefix("unrecognized arguments: ").split())
        super().error(message)


def _hint(extra: Sequence[str]) -> str:
    """Return what to write in place of arguments that no command has."""
    from saesweep.experiment.fields import WITHOUT_EFFECT, known_paths
    from saesweep.messages import nearest
    from saesweep.specs import SearchSpec

    flag, _, given = extra[0].partition("=")
    name = flag.lstrip("-").replace("-", "_")
    if not flag.startswith("--"):
        return ""
    if name in ("resume", "continue"):
        return "; the same command without it resumes a run"
    for path, advice in WITHOUT_EFFECT.items():
        if name in (path, path.rpartition(".")[2]):
            return f"; {advice}"
    settings = [*(f"search.{field}" for field in SearchSpec.model_fields), *(f"base.{path}" for path in known_paths())]
    setting = nearest(name, settings)
    if setting is None or setting.rpartition(".")[2] != name.rpartition(".")[2]:
        return ""
    value = given or (extra[1] if len(extra) > 1 else "VALUE")
    return f"; a setting of the file is changed with --set {setting}={value}"


def new_parser(commands: Subparsers, name: str, *, summary: str, examples: str) -> argparse.ArgumentParser:
    """Return the parser of one command, its examples below the options."""
    parser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--plugin",
        metavar="MODULE",
        action="append",
        default=[],
        help="import this module, or Python file, first: it may register architectures, metrics and trackers",
    )
    return parser


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """Add `--set PATH=VALUE`."""
    parser.add_argument(
        "--set",
        dest="overrides",
        metavar="PATH=VALUE",
        action="append",
        default=[],
        help="override one value of the file, such as --set base.lr=1e-4; may be given several times",
    )
