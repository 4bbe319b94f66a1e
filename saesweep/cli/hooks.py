"""`saesweep hooks`."""

from __future__ import annotations

import argparse
import json
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from saesweep.cli.command import DONE, echo, new_parser

if TYPE_CHECKING:
    from saesweep.cli.command import Subparsers
    from saesweep.models import HookPoint

_EXAMPLES = """\
  saesweep hooks builtin:tiny-lm
  saesweep hooks google/gemma-2-2b --match 'model.layers.12*'
  saesweep hooks google/gemma-2-2b --match '*.mlp.down_proj:input'
  saesweep hooks ./models/tiny --model-from-pretrained-kwargs '{gguf_file: tiny.gguf}'
  saesweep hooks gpt2 --model-class-name TransformerBridge --match 'blocks.3.*'
"""


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = new_parser(
        commands,
        "hooks",
        summary="list a model's hook points with the shape at each; no weights are read",
        examples=_EXAMPLES,
    )
    parser.add_argument("model", metavar="MODEL", help="Hub id, local folder or builtin:tiny-lm")
    parser.add_argument(
        "--match",
        metavar="GLOB",
        help="only names like this; inputs are listed where it holds a colon, such as '*:input'",
    )
    parser.add_argument(
        "--model-class-name",
        metavar="CLASS",
        default="AutoModelForCausalLM",
        help="a model class of transformers (default %(default)s), or TransformerBridge",
    )
    parser.add_argument(
        "--model-from-pretrained-kwargs",
        metavar="MAPPING",
        default="{}",
        help="loading arguments as in the experiment file, such as '{revision: main}' or '{gguf_file: model.gguf}'",
    )
    parser.add_argument(
        "--allow-code-execution",
        action="store_true",
        help="accept loading arguments that let the model's files run code",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")
    parser.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Print the hook points.

    Raises:
        UserError: The model cannot be had, or nothing matches.
    """
    from saesweep.errors import UserError
    from saesweep.experiment.yaml_text import read_value
    from saesweep.models import list_hooks
    from saesweep.specs import BaseRun

    given = args.model_from_pretrained_kwargs
    kwargs, wrong = read_value(given, "--model-from-pretrained-kwargs")
    if wrong or not isinstance(kwargs, dict):
        reason = f" ({'; '.join(wrong)})" if wrong else ""
        raise UserError(f"--model-from-pretrained-kwargs: {given!r} is no mapping{reason}; write '{{name: value}}'")
    run = BaseRun.model_validate(
        {
            "model_name": args.model,
            "model_class_name": args.model_class_name,
            "model_from_pretrained_kwargs": kwargs,
            "allow_code_execution": args.allow_code_execution,
            "dataset_path": "unused",
            "sae": {"architecture": "standard"},
        }
    )
    points = [point for point in list_hooks(run) if _is_wanted(point.name, args.match)]
    if not points:
        raise UserError(f"--match {args.match!r}: no hook of {args.model} has such a name; leave it out to list all")
    if args.json:
        for point in points:
            echo(json.dumps({"name": point.name, "axes": point.axes, "counterpart": point.counterpart}))
    else:
        _print_table(points)
    return DONE


def _is_wanted(name: str, pattern: str | None) -> bool:
    if pattern is None:
        return ":" not in name
    # Every module has an input too: listed only for those who ask, as it would double the list.
    return fnmatchcase(name, pattern) and (":" not in name or ":" in pattern)


def _print_table(points: list[HookPoint]) -> None:
    shapes = ["-" if point.axes is None else f"[{', '.join(point.axes)}]" for point in points]
    name_width, shape_width = max(len(point.name) for point in points), max(map(len, shapes))
    for point, shape in zip(points, shapes, strict=True):
        counterpart = "" if point.counterpart is None else f"= {point.counterpart}"
        echo(f"{point.name:<{name_width}}  {shape:<{shape_width}}  {counterpart}".rstrip())
