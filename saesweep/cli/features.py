"""`saesweep features`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from saesweep.cli.command import DONE, add_overrides, echo, new_parser
from saesweep.cli.report import latents_of
from saesweep.errors import UserError

if TYPE_CHECKING:
    from saesweep.cli.command import Subparsers

_EXAMPLES = """\
  saesweep features runs/quickstart                        the best SAE, beside another one of the front
  saesweep features runs/quickstart/pareto/0003-topk-k-16 --to topk.html
  saesweep features google/gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82 --dataset monology/pile-uncopyrighted
  saesweep features runs/quickstart/best --neuronpedia upload --neuronpedia-set res-topk

An SAE is what `saesweep eval` takes: a folder of saesweep, SAELens or another tool that it reads, or a Hub id. Two are
shown side by side. Model, hook and text are those that the SAE names.
"""
_FLAGS = {
    "model": ("base.model_name", "NAME", "language model: Hub id, folder or builtin:tiny-lm"),
    "model_class_name": ("base.model_class_name", "CLASS", "its library: AutoModelForCausalLM or TransformerBridge"),
    "dataset": ("base.dataset_path", "PATH", "text to read: Hub id, file, folder or glob"),
    "context_size": ("base.context_size", "N", "tokens per context"),
    "device": ("base.device", "DEVICE", "auto, cpu, cuda, ..."),
}
"""Flag -> (the experiment's field that it sets, metavar, help)."""


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = new_parser(
        commands,
        "features",
        summary="write what the latents of any SAE fire on as an HTML page, or for Neuronpedia",
        examples=_EXAMPLES,
    )
    parser.add_argument(
        "saes", metavar="PATH", nargs="+", help="a run directory, an SAE's folder or a Hub id; or two SAEs"
    )
    parser.add_argument(
        "--to", metavar="FILE", type=Path, help="the page (default: features.html in the folder of the SAE or run)"
    )
    parser.add_argument(
        "--experiment", metavar="FILE", type=Path, help="take model, dataset and held-out tokens from this file"
    )
    parser.add_argument("--hook", metavar="NAME", help="read every SAE at this hook (default: the SAE's own)")
    for flag, (_, metavar, text) in _FLAGS.items():
        parser.add_argument(f"--{flag.replace('_', '-')}", metavar=metavar, help=text)
    add_overrides(parser)
    parser.add_argument(
        "--tokens", metavar="N", type=int, default=200_000, help="held-out tokens to look at (default: 200000)"
    )
    parser.add_argument(
        "--latents", metavar="N,N,...", default="", help="latents that come with examples even where not all have room"
    )
    parser.add_argument(
        "--neuronpedia", metavar="DIR", type=Path, help="also write every feature in the form of Neuronpedia's uploads"
    )
    parser.add_argument("--neuronpedia-model", metavar="ID", help="Neuronpedia's name of the model, such as gpt2-small")
    parser.add_argument("--neuronpedia-set", metavar="ID", help="name of the set of SAEs there, such as res-topk")
    parser.add_argument(
        "--allow-code-execution",
        action="store_true",
        help="load the model with arguments that run code, where the run's experiment allows it",
    )
    parser.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Write the page, and what was asked for beside it."""
    if args.tokens < 1:
        raise UserError(f"--tokens: must be at least 1, not {args.tokens}")
    latents = latents_of(args.latents)
    for flag in ("neuronpedia_model", "neuronpedia_set"):
        if getattr(args, flag) and args.neuronpedia is None:
            raise UserError(f"--{flag.replace('_', '-')}: says how --neuronpedia DIR names things, which is missing")
    overrides = [f"{path}={getattr(args, flag)}" for flag, (path, _, _) in _FLAGS.items() if getattr(args, flag)]
    if args.dataset:
        overrides.append("base.datasets=[]")  # in place of a mixture too
    if args.hook:
        overrides.append(f"base.hook_name={args.hook}")

    from saesweep.report.write_features import write_features

    done = write_features(
        args.saes,
        to=args.to,
        experiment=args.experiment,
        overrides=[*overrides, *args.overrides],
        hook=args.hook,
        latents=latents,
        max_tokens=args.tokens,
        neuronpedia=args.neuronpedia,
        neuronpedia_model=args.neuronpedia_model,
        neuronpedia_set=args.neuronpedia_set,
        allow_code_execution=args.allow_code_execution,
    )
    echo(f"wrote {done.page}")
    if done.neuronpedia:
        echo(f"wrote {len(done.neuronpedia)} batches for Neuronpedia to {done.neuronpedia[0].parent}")
    for note in done.notes:
        echo(f"note: {note}")
    return DONE
