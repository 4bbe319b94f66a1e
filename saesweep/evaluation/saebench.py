"""Hands SAEs to SAEBench 0.6, which runs in a Python of its own.

SAEBench asks for datasets below 4 and numpy below 2, saesweep for datasets from 5 on: pip installs no two of them beside each
other. So the SAEs are written as folders that SAELens loads, and `saebench_runner.py`, which needs nothing of saesweep, runs
where SAEBench is installed.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from saesweep.errors import UserError
from saesweep.evaluation import saebench_runner
from saesweep.messages import did_you_mean
from saesweep.saes import ExportedSAE, open_sae
from saesweep.saes.folder import save_sae_folder

_STDERR = 2
"""What SAEBench prints goes there: standard output is for results."""
EVALUATIONS = ("core", "sparse_probing", "sparse_probing_sae_probes", "absorption", "scr", "tpp", "ravel")
"""Those of SAEBench that need no key to a paid service and no file that it does not download by itself."""
INSTALL = "python -m venv saebench && saebench/bin/pip install 'sae-bench>=0.6,<0.7', then add --saebench-python saebench/bin/python"


@dataclass(frozen=True)
class BenchResult:
    """What one evaluation says of one SAE."""

    source: str
    """What the user named."""
    evaluation: str
    file: Path
    """SAEBench's own file."""
    metrics: dict[str, Any]
    """Its `eval_result_metrics`: metrics by category."""


def run_saebench(
    sources: Sequence[str],
    evaluations: Sequence[str],
    *,
    python: str | None = None,
    output: Path = Path("eval_results"),
    model: str | None = None,
    device: str | None = None,
) -> list[BenchResult]:
    """Run SAEBench on SAEs and return its results; those that its output folder holds already are not made again.

    Args:
        sources: What `open_sae` reads.
        evaluations: Some of `EVALUATIONS`.
        python: The interpreter of the environment that SAEBench is installed in; this one when left out.
        output: Its output folder; SAEBench's own default.
        model: The language model by a name that TransformerLens knows; by default the one in the SAEs' metadata.
        device: A GPU where there is one, when left out.

    Raises:
        UserError: SAEBench is not installed there, an SAE cannot be handed on, or SAEBench fails.
    """
    if not evaluations:
        raise UserError(f"--saebench: names no evaluation; there are {', '.join(EVALUATIONS)}")
    for name in evaluations:
        if name not in EVALUATIONS:
            hint = did_you_mean(name, EVALUATIONS) or f"; there are {', '.join(EVALUATIONS)}"
            raise UserError(f"--saebench: no evaluation {name!r}{hint}")
    if python is None and not _is_here():
        raise UserError(
            "--saebench: SAEBench is not installed here, and what it depends on excludes saesweep, so that it takes an "
            f"environment of its own: {INSTALL}"
        )
    saes = [_checked(source, open_sae(source)) for source in sources]
    models = list(dict.fromkeys(str(sae.metadata.get("model_name")) for sae in saes)) if model is None else [model]
    if len(models) > 1:
        raise UserError(f"--saebench: the SAEs belong to {' and '.join(models)}; evaluate those of one model at a time")
    if models == ["None"]:
        raise UserError(f"{sources[0]}: its metadata name no model; give --model")
    if models[0].startswith("builtin:") or Path(models[0]).is_dir():
        raise UserError(
            f"--saebench: the SAEs belong to {models[0]}, and SAEBench loads a model by a name that TransformerLens knows; give "
            "it with --model"
        )
    output = output.resolve()
    names = {_name(source, sae): (source, sae) for source, sae in zip(sources, saes, strict=True)}
    for name, (_, sae) in names.items():
        save_sae_folder(output / "saes" / name, sae, sparsity_F=None)
    request = {
        "saes": {name: str(output / "saes" / name) for name in names},
        "evaluations": list(evaluations),
        "model_name": models[0],
        "device": device,
        "output": str(output),
    }
    _start(python or sys.executable, output / "request.json", request)
    return [
        _result(source, name, evaluation, output) for name, (source, _) in names.items() for evaluation in evaluations
    ]


def _is_here() -> bool:
    try:
        return find_spec("sae_bench") is not None
    except ValueError:  # among the loaded modules, and blocked there
        return False


def _checked(source: str, sae: ExportedSAE) -> ExportedSAE:
    """Return an SAE that SAEBench can take."""
    hook = str(sae.metadata.get("hook_name"))
    if sae.is_transcoder:
        raise UserError(f"{source}: a transcoder, and SAEBench takes SAEs of one hook")
    if "hook_" not in hook:
        raise UserError(
            f"{source}: belongs to {hook}, for which TransformerLens has no name, and SAEBench reads its models with it"
        )
    return sae


def _name(source: str, sae: ExportedSAE) -> str:
    """Return a name that says which SAE it is, with its weights: SAEBench skips a name that it has results of."""
    return f"{re.sub(r'[^A-Za-z0-9.-]+', '-', source).strip('-.')[-80:]}-{sae.sha256()[:8]}"


def _start(python: str, file: Path, request: dict[str, Any]) -> None:
    file.write_text(json.dumps(request, indent=1), encoding="utf-8")
    # From standard input, so that the folder of the script, which has modules of saesweep, is not on the path.
    with Path(saebench_runner.__file__).open("rb") as script:
        try:
            done = subprocess.run([python, "-", str(file)], stdin=script, stdout=_STDERR, check=False)
        except OSError as error:
            raise UserError(f"--saebench-python: {python}: {error.strerror}; name an interpreter") from None
    if done.returncode == saebench_runner.NOT_INSTALLED:
        raise UserError(f"--saebench-python: {python} cannot import SAEBench (above); {INSTALL}")
    if done.returncode != 0:
        raise UserError(f"--saebench: SAEBench ended with exit code {done.returncode}; its own message is above")


def _result(source: str, name: str, evaluation: str, output: Path) -> BenchResult:
    file = output / evaluation / f"{name}_custom_sae_eval_results.json"
    if not file.is_file():
        raise UserError(f"--saebench: SAEBench has written no {file}; its own message is above")
    found = json.loads(file.read_text(encoding="utf-8"))
    return BenchResult(source, evaluation, file, found["eval_result_metrics"])
