"""`saesweep eval`."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from saesweep.cli.command import DONE, add_overrides, echo, new_parser
from saesweep.errors import UserError

if TYPE_CHECKING:
    from saesweep.cli.command import Subparsers
    from saesweep.evaluation import Comparison

_EXAMPLES = """\
  saesweep eval runs/quickstart/pareto/*                       one row each, on the run's own held-out tokens
  saesweep eval runs/gemma_l12/best google/gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82 \\
      --experiment experiments/gemma_l12.yaml                  ours beside a published one
  saesweep eval runs/multi_k/best --k 8,16,32,64               one SAE, a row for each number of latents
  saesweep eval my_sae --dataset stories.txt --tokens 1M --json > metrics.json
  saesweep eval runs/gemma_l12/best --saebench core,tpp --saebench-python saebench/bin/python

An SAE is a folder of saesweep, SAELens, Gemma Scope (1 or 2), dictionary_learning, sparsify or Llama Scope, a run directory,
a layer<n>.sae.pt of Qwen Scope, or a Hub id user/repo/folder. Every row is measured on the same tokens; +- is the standard error over contexts.
"""
_FLAGS = {
    "model": ("base.model_name", "NAME", "language model: Hub id, folder or builtin:tiny-lm"),
    "model_class_name": ("base.model_class_name", "CLASS", "its library: AutoModelForCausalLM or TransformerBridge"),
    "dataset": ("base.dataset_path", "PATH", "text or tokens to measure on: Hub id, file, folder or glob"),
    "context_size": ("base.context_size", "N", "tokens per context"),
    "tokens": ("evaluation.select_tokens", "N", "tokens of the part select, such as 500k (default: 100k)"),
    "device": ("base.device", "DEVICE", "auto, cpu, cuda, ..."),
}
"""Flag -> (the experiment's field that it sets, metavar, help)."""


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = new_parser(
        commands,
        "eval",
        summary="measure trained or published SAEs side by side on the same tokens",
        examples=_EXAMPLES,
    )
    parser.add_argument("saes", metavar="SAE", nargs="+", help="folder, file of weights or Hub id")
    parser.add_argument(
        "--experiment",
        metavar="FILE",
        type=Path,
        help="take model, dataset and held-out tokens from this file (default: the experiment.yaml beside the first SAE "
        "that has one, else the first SAE's metadata)",
    )
    parser.add_argument("--hook", metavar="NAME", help="measure every SAE at this hook (default: the SAE's own)")
    for flag, (_, metavar, text) in _FLAGS.items():
        parser.add_argument(f"--{flag.replace('_', '-')}", metavar=metavar, help=text)
    parser.add_argument(
        "--k",
        metavar="N,N,...",
        default="",
        help="measure every SAE at each of these numbers of latents per token instead of its own (topk, abstopk); "
        "one SAE of multi_k is trained for several",
    )
    parser.add_argument(
        "--saebench",
        metavar="EVALS",
        nargs="?",
        const="core,sparse_probing",
        help="run these evaluations of SAEBench 0.6 instead, on its own data (default: core,sparse_probing)",
    )
    parser.add_argument(
        "--saebench-python", metavar="PYTHON", help="interpreter of the environment that SAEBench is installed in"
    )
    parser.add_argument(
        "--saebench-output",
        metavar="DIR",
        type=Path,
        help="where SAEBench keeps its results and artifacts (default: eval_results)",
    )
    add_overrides(parser)
    parser.add_argument(
        "--part",
        choices=("select", "test"),
        default="select",
        help="held-out part: select (default) is what rungs and rankings use; test should be read once",
    )
    parser.add_argument(
        "--ablation", choices=("zero", "mean"), default="zero", help="what scores are relative to (default: zero)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON with every metric")
    parser.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Measure and print."""
    if args.saebench is not None:
        return _saebench(args)
    for name in ("saebench_python", "saebench_output"):
        if getattr(args, name) is not None:
            raise UserError(f"--{name.replace('_', '-')}: goes with --saebench, which is not given")
    from saesweep.evaluation import evaluate_saes

    overrides = [f"{path}={getattr(args, flag)}" for flag, (path, _, _) in _FLAGS.items() if getattr(args, flag)]
    if args.dataset:
        overrides.append("base.datasets=[]")  # in place of a mixture too
    if args.hook:
        overrides.append(f"base.hook_name={args.hook}")
    found = evaluate_saes(
        args.saes,
        experiment=args.experiment,
        overrides=[*overrides, *args.overrides],
        hook=args.hook,
        part=args.part,
        ablation=args.ablation,
        ks=_ks_of(args.k),
    )
    if args.json:
        echo(json.dumps(found.to_json(), indent=1, allow_nan=False))
    else:
        _print_table(found)
    return DONE


_OF_OUR_DATA = {"experiment": None, "hook": None, "dataset": None, "context_size": None, "tokens": None} | {
    "k": "",
    "overrides": [],
    "part": "select",
    "ablation": "zero",
}
"""Options that say what is measured on, with their defaults: SAEBench measures on its own data."""


def _saebench(args: argparse.Namespace) -> int:
    for name, default in _OF_OUR_DATA.items():
        if getattr(args, name) != default:
            flag = "set" if name == "overrides" else name.replace("_", "-")
            raise UserError(
                f"--{flag}: has no effect with --saebench, which measures on SAEBench's own data; leave it out"
            )
    from saesweep.evaluation.saebench import run_saebench

    found = run_saebench(
        args.saes,
        [name.strip() for name in args.saebench.split(",") if name.strip()],
        python=args.saebench_python,
        output=args.saebench_output or Path("eval_results"),
        model=args.model,
        device=args.device,
    )
    if args.json:
        rows = [{**vars(result), "file": str(result.file)} for result in found]
        echo(json.dumps(rows, indent=1))
    else:
        for result in found:
            echo(f"{result.source}: {result.evaluation} -> {result.file}")
    return DONE


def _ks_of(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isdecimal() for part in parts):
        raise UserError(f"--k: {text!r} is no list of numbers of latents such as 8,16,32")
    return [int(part) for part in parts]


def _print_table(found: Comparison) -> None:
    from saesweep.display.evaluated import evaluation_text
    from saesweep.display.text import encodable
    from saesweep.evaluation import registered_metrics

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    echo(encodable(evaluation_text(found.to_json(), registered_metrics(), width=width), sys.stdout.encoding))
