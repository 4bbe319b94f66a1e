"""`saesweep cache-activations`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from saesweep.cli.command import DONE, add_overrides, echo, new_parser

if TYPE_CHECKING:
    from saesweep.cli.command import Subparsers

_EXAMPLES = """\
  saesweep cache-activations my_experiment.yaml --to caches/layer12 --tokens 500M
  saesweep cache-activations my_experiment.yaml --to caches/layer12 --tokens 500M --dtype bfloat16
  saesweep run my_experiment.yaml --set base.use_cached_activations=true --set base.cached_activations_path=caches/layer12

All hooks that the experiment can ask for are written, from one forward pass, shuffled, in the order in which a live run
would train on them. The same command again resumes where an interrupted one stopped, checks every shard, makes damaged
ones again, and with more --tokens makes the cache longer.
"""


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = new_parser(
        commands,
        "cache-activations",
        summary="write an experiment's activations to disk, to train from without the language model",
        examples=_EXAMPLES,
    )
    parser.add_argument("experiment", metavar="EXPERIMENT", type=Path, help="the experiment file (YAML)")
    add_overrides(parser)
    parser.add_argument(
        "--to", metavar="DIR", type=Path, help="folder to write (default: base.cached_activations_path)"
    )
    parser.add_argument(
        "--tokens",
        metavar="N",
        help="training rows, such as 500M (default: base.training_tokens, so one epoch a trial)",
    )
    parser.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16", "float16"),
        default="auto",
        help="type on disk; auto (default): the one that the model computes in, which loses nothing",
    )
    parser.add_argument(
        "--shard-size", metavar="BYTES", default="256M", help="maximum bytes per shard, such as 256M (default)"
    )
    parser.add_argument(
        "--hf_repo_id", metavar="USER/NAME", help="also upload the finished cache to this dataset repository of the Hub"
    )
    parser.add_argument("--hf_is_private_repo", action="store_true", help="make a new repository private")
    parser.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Write the cache."""
    from saesweep.errors import UserError
    from saesweep.experiment import load_experiment, only_stream

    experiment = only_stream(load_experiment(args.experiment, overrides=args.overrides))
    run = experiment.base_run()
    target = args.to if args.to is not None else run.cached_activations_path
    if target is None:
        raise UserError("--to: missing; give the folder to write, or set base.cached_activations_path")
    if run.is_synthetic:
        raise UserError("base.dataset_path: builtin:synthetic is drawn as it is needed; there is nothing to cache")
    tokens = run.training_tokens if args.tokens is None else _count("--tokens", args.tokens)
    shard_bytes = _count("--shard-size", args.shard_size)

    from saesweep.activations.cache.writer import CacheProgress, DiskNeed, write_cache
    from saesweep.cli.progress_line import ProgressLine

    line = ProgressLine("tokens")

    def print_requirements(need: DiskNeed) -> None:
        echo(
            f"{need.folder}: {need.rows} rows to write in {need.dtype}, {need.needed_bytes / 1e9:.2f} GB; "
            f"{need.free_bytes / 1e9:.2f} GB are free",
            flush=True,
        )

    def show(progress: CacheProgress) -> None:
        line.update(progress.tokens, progress.total_tokens)

    try:
        manifest = write_cache(
            run,
            experiment.spec.evaluation,
            experiment.hook_names(),
            Path(target).expanduser(),
            tokens=tokens,
            dtype=None if args.dtype == "auto" else args.dtype,
            shard_bytes=shard_bytes,
            on_disk_need=print_requirements,
            on_damage=lambda message: echo(f"warning: {message}", flush=True),
            on_warning=lambda message: echo(f"warning: {message}", flush=True),
            on_progress=show,
        )
    finally:
        line.close()
    echo(
        f"{target}: complete, {manifest.rows('train')} training rows at {', '.join(manifest.hooks)}; train from it with "
        f"base.use_cached_activations: true, base.cached_activations_path: {target}"
    )
    if args.hf_repo_id is not None:
        from saesweep.activations.cache.hub import upload_cache

        upload_cache(Path(target).expanduser(), args.hf_repo_id, private=args.hf_is_private_repo)
        echo(f"uploaded; train from it anywhere with base.cached_activations_path: {args.hf_repo_id}")
    return DONE


def _count(option: str, text: str) -> int:
    from saesweep.errors import UserError
    from saesweep.specs.units import parse_count

    try:
        value = parse_count(text)
    except ValueError as error:
        raise UserError(f"{option}: {error}") from None
    if value < 1:
        raise UserError(f"{option}: {text} is not positive")
    return value
