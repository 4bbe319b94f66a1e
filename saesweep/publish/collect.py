"""What of a run directory is published, and under which names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from saesweep.errors import UserError
from saesweep.files import no_run_directory, refuse_links_in_run
from saesweep.runs import RunDirectory
from saesweep.saes import ExportedSAE, load_sae_folder
from saesweep.saes.folder import CFG_FILE


def collect_run(run: Path, *, pareto: bool = False, matched: bool = False, trial: int | None = None) -> dict[str, Path]:
    """Return the SAEs to publish: name in the repository (`<hook>/<label>`) to exported folder.

    Args:
        run: A run directory, or the folder of one exported SAE.
        pareto: The Pareto front in place of the best one.
        matched: The winner at each L0 in place of the best one.
        trial: This trial in place of the best one.

    Raises:
        UserError: There is no such SAE.
    """
    if run.is_dir():
        refuse_links_in_run(run)
    if (run / CFG_FILE).is_file():
        return {name_of(load_sae_folder(run), run.resolve().name): run}
    directory = RunDirectory(run)
    if not directory.path.is_dir():
        raise no_run_directory(run)
    if pareto:
        return _all_in(directory.pareto, "no Pareto front; the run has not ended, or its objective has one goal")
    if matched:
        return _all_in(directory.matched, "no winners at an L0; the run has not ended, or has no objective.matched")
    folder = directory.best if trial is None else directory.trial_sae(trial)
    label = "best" if trial is None else f"trial-{trial:04d}"
    if not (folder / CFG_FILE).is_file():
        raise UserError(f"{folder}: no exported SAE; wait for the run to end, or name a finished trial with --trial")
    return {name_of(load_sae_folder(folder), label): folder}


def _all_in(parent: Path, otherwise: str) -> dict[str, Path]:
    folders = sorted(path.parent for path in parent.glob(f"*/{CFG_FILE}"))
    if not folders:
        raise UserError(f"{parent}: {otherwise}")
    return {name_of(load_sae_folder(folder), folder.name): folder for folder in folders}


def name_of(sae: ExportedSAE, label: str) -> str:
    """Return `<hook>/<label>`, both safe as folder names."""
    own: Any = sae.metadata.get("saesweep")
    hook = sae.metadata.get("hook_name") or (own.get("hook_name") if isinstance(own, dict) else None) or "sae"
    return f"{safe_name(str(hook))}/{safe_name(label)}"


def safe_name(text: str) -> str:
    """Return text that is a file name on every system."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.") or "sae"
