"""`saesweep export`."""

from __future__ import annotations

import argparse
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from saesweep.cli.command import DONE, echo, new_parser
from saesweep.errors import UserError
from saesweep.files import is_run_directory, no_run_directory, refuse_links

if TYPE_CHECKING:
    from saesweep.cli.command import Subparsers
    from saesweep.runs import RunDirectory

_EXAMPLES = """\
  saesweep export runs/quickstart --to my_sae                 the best SAE
  saesweep export runs/quickstart --trial 7 --to my_sae       another trial of the leaderboard
  saesweep export runs/quickstart --to s3://bucket/my_sae     to a store that fsspec knows (here with s3fs installed)
  saesweep export runs/layer0 runs/layer1 --format circuit-tracer --to sets/me/my_set
                                                              transcoders of all layers (docs/transcoders.md)

The folder loads with SAELens' SAE.load_from_disk and, as base: {from_cfg: my_sae}, in an experiment file.
"""
_EXPORTED_FILES = frozenset(
    {
        "cfg.json",
        "checksums.json",
        "experiment.yaml",
        "provenance.json",
        "runner_cfg.json",
        "sae_weights.safetensors",
        "sparsity.safetensors",
    }
)
_SET_FILES = re.compile(r"config\.yaml|layer_\d+\.safetensors")


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = new_parser(commands, "export", summary="copy a trained SAE out of a run directory", examples=_EXAMPLES)
    parser.add_argument(
        "runs", metavar="RUN", type=Path, nargs="+", help="the run directory; for circuit-tracer also folders of SAEs"
    )
    parser.add_argument("--trial", metavar="N", type=int, help="number of the trial (default: the best)")
    parser.add_argument("--to", metavar="DIR", required=True, help="the folder to make, or its URL")
    parser.add_argument("--force", action="store_true", help="replace an SAE that is already in DIR")
    parser.add_argument(
        "--format",
        choices=("saelens", "circuit-tracer"),
        default="saelens",
        help="circuit-tracer: the transcoders of RUN..., one for the MLP of each layer, as one set (default: saelens)",
    )
    parser.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Copy the folder, or write a set."""
    if args.format == "circuit-tracer":
        return _write_set(args)
    if len(args.runs) > 1:
        raise UserError(f"{args.runs[1]}: one SAE is copied at a time; several make a set with --format circuit-tracer")
    from saesweep.runs import RunDirectory, is_url, replace_folder, upload_export
    from saesweep.saes.folder import check_checksums

    source = _source(RunDirectory(args.runs[0]), args.trial)
    check_checksums(source)  # a damaged SAE is not handed on
    if is_url(args.to):
        upload_export(source, args.to, exported_files=_EXPORTED_FILES, force=args.force)
    else:
        target = Path(args.to)
        check_target(target, source, args.force)
        # resolve(): a link to a folder is filled, not replaced
        replace_folder(target.resolve(), lambda folder: _copy(source, folder))
    echo(f"copied {source} to {args.to}")
    return DONE


def _write_set(args: argparse.Namespace) -> int:
    """Write the transcoders of several runs, or folders of SAEs, as one set."""
    from saesweep.publish.circuit_tracer import write_transcoder_set
    from saesweep.runs import RunDirectory, is_url

    if is_url(args.to):
        raise UserError(
            f"--to: {args.to} is a URL, and a set is written to a folder; name a folder, and copy it from there"
        )
    target = Path(args.to)
    if args.trial is not None:
        raise UserError(
            "--trial: names a trial of one run; name its folder in the place of RUN, such as RUN/trials/0007/sae"
        )
    sources = [path if (path / "cfg.json").is_file() else _source(RunDirectory(path), None) for path in args.runs]
    check_target(target, None, args.force, _is_of_set, "a set of transcoders")
    layers, described = write_transcoder_set(target.resolve(), sources)
    skip = ", with skip connections" if described.has_skip else ""
    echo(
        f"wrote {layers} transcoders of {described.d_sae} latents{skip} to {args.to}: {described.feature_input_hook} to "
        f"{described.feature_output_hook} of {described.model_name}"
    )
    return DONE


def _is_of_set(name: str) -> bool:
    return _SET_FILES.fullmatch(name) is not None


def _source(run: RunDirectory, trial: int | None) -> Path:
    if not run.path.is_dir():
        raise no_run_directory(run.path)
    refuse_links(run.path)
    if trial is None:
        if not (run.best / "cfg.json").is_file():
            if not is_run_directory(run.path):
                raise UserError(f"{run.path}: is no run directory; name the folder that `saesweep run` made")
            raise UserError(f"{run.best}: no exported SAE yet; wait for the run to end, or name one with --trial")
        return run.best
    source = run.trial_sae(trial)
    if trial < 0 or not (source / "cfg.json").is_file():
        exported = _exported_trials(run)
        listed = f"exported so far: {', '.join(map(str, exported))}" if exported else "none is exported yet"
        raise UserError(f"{run.path}: trial {trial} has no exported SAE; {listed}")
    return source


def _exported_trials(run: RunDirectory) -> list[int]:
    folders = (path.parent.parent.name for path in (run.path / "trials").glob("*/sae/cfg.json"))
    return sorted(int(name) for name in folders if name.isascii() and name.isdecimal())


def check_target(
    target: Path,
    source: Path | None,
    force: bool,
    is_own: Callable[[str], bool] = _EXPORTED_FILES.__contains__,
    kind: str = "an exported SAE",
) -> None:
    """Refuse to write over anything but an exported SAE, and over that one only with `--force`.

    Args:
        target: The folder to make.
        source: The SAE that is copied.
        force: Whether to replace what is there.
        is_own: Says of a file's name whether the file may be replaced.
        kind: What such files are of.

    Raises:
        UserError: The folder may not be written.
    """
    if target.exists() and not target.is_dir():
        raise UserError(f"{target}: is a file; --to names the folder to make")
    if not target.exists():
        return
    if source is not None and source.resolve() == target.resolve():
        raise UserError(f"{target}: is the SAE itself; name another folder with --to")
    from saesweep.runs import check_replaceable

    names = [path.name for path in target.iterdir()]
    check_replaceable(target, names, is_own=is_own, kind=kind, force=force)


def _copy(source: Path, folder: Path) -> None:
    for file in sorted(source.iterdir()):
        if file.is_file():
            shutil.copyfile(file, folder / file.name)
