"""`saesweep train`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saesweep.cli.command import add_overrides, new_parser
from saesweep.cli.run import add_run_dir, run_with_display
from saesweep.display.choose import DISPLAY_KINDS

if TYPE_CHECKING:
    from saesweep.cli.command import Subparsers
    from saesweep.experiment import Experiment

_EXAMPLES = """\
  saesweep train --model_name builtin:tiny-lm --hook_name model.layers.2 --dataset_path builtin:python-docs \\
      --architecture topk --k 32 --d_sae 1024 --training_tokens 400k --lr 1e-3
  saesweep train --from_cfg path/to/runner_cfg.json --n_checkpoints 3
  saesweep train experiments/gemma_l12.yaml --lr 1e-4 --from_pretrained_path runs/gemma_l12/best

The flags are the fields of SAELens' runner, with its meanings; --k is short for --sae.k. Values are written as in an
experiment file: 2M, 5%, null, "[0, -10]", "{dtype: bfloat16}". A switch needs no value; --streaming false turns one off.
What is not of the run itself is set with --set, such as --set evaluation.test_tokens=1M. The same command again resumes
where an interrupted run stopped.
"""
_BASE = "base."
"""Marks the arguments that are fields of the run."""


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = new_parser(
        commands, "train", summary="train one SAE, from flags or a file, and export it", examples=_EXAMPLES
    )
    parser.usage = (
        "saesweep train [FILE] [--from_cfg CFG] [--FIELD VALUE ...] [--set PATH=VALUE] [--run-dir DIR] [--display KIND]"
    )
    parser.add_argument(
        "experiment",
        metavar="FILE",
        type=Path,
        nargs="?",
        help="an experiment, whose base is trained, or a YAML file of base fields alone; flags win",
    )
    parser.add_argument(
        "--from_cfg",
        dest=f"{_BASE}from_cfg",
        metavar="CFG",
        default=argparse.SUPPRESS,
        help="start from this cfg.json, runner_cfg.json, folder or Hub id of SAELens or saesweep; flags win",
    )
    add_overrides(parser)
    add_run_dir(parser, "runs/<name of the file>, else runs/<architecture>-<hash of the settings>")
    parser.add_argument(
        "--display", choices=DISPLAY_KINDS, help="as in `saesweep run`; with --verbose false: none (default: auto)"
    )
    parser.set_defaults(execute=execute)
    parse = parser.parse_known_args

    def parse_with_fields(args: Any = None, namespace: Any = None) -> Any:
        _load_plugins(parser, args)
        _add_flags(parser)
        return parse(args, namespace)

    # The fields come from pydantic, which is too slow to import at every start of every command.
    parser.parse_known_args = parse_with_fields  # type: ignore[method-assign]


def _load_plugins(parser: argparse.ArgumentParser, args: Any) -> None:
    """Load the plugins that the arguments name, and those installed: their architectures have flags too."""
    from saesweep.errors import UserError
    from saesweep.plugins import load_installed_plugins, load_plugin

    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--plugin", action="append", default=[])
    try:
        load_installed_plugins()
        for plugin in early.parse_known_args(args)[0].plugin:
            load_plugin(plugin)
    except UserError as error:
        parser.error(str(error))


def _add_flags(parser: argparse.ArgumentParser) -> None:
    from saesweep.experiment.single_run import run_flags

    groups: dict[str, Any] = {}
    for flag in run_flags():
        if flag.group not in groups:
            groups[flag.group] = parser.add_argument_group(flag.group)
        kind: dict[str, Any] = {"nargs": "?", "const": "true"} if flag.is_switch else {}
        groups[flag.group].add_argument(
            *(f"--{name}" for name in (flag.path, *flag.aliases)),
            dest=f"{_BASE}{flag.path}",
            metavar="VALUE",
            default=argparse.SUPPRESS,
            help=flag.description.replace("%", "%%"),
            **kind,
        )


def experiment_of(args: argparse.Namespace) -> Experiment:
    """Return the checked run that the arguments describe."""
    from saesweep.experiment import load_single_run

    return load_single_run(args.experiment, flags=_flags(args), overrides=args.overrides)


def execute(args: argparse.Namespace) -> int:
    """Train the SAE."""
    experiment = experiment_of(args)
    verbose = experiment.base_run().verbose
    return run_with_display(
        experiment,
        run_dir=args.run_dir,
        display=args.display or ("auto" if verbose else "none"),
        verbose=verbose and "verbose" in _flags(args),
    )


def _flags(args: argparse.Namespace) -> dict[str, str]:
    """Return what was given, by path under `base`."""
    return {name.removeprefix(_BASE): text for name, text in vars(args).items() if name.startswith(_BASE)}
