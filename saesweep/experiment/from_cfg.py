"""`base: {from_cfg: ...}`: start from the configuration of a SAELens run, a SAELens SAE or one of our own exports."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from saesweep.errors import UserError
from saesweep.experiment.document import Document, Place, dotted
from saesweep.experiment.fields import NESTED, WITHOUT_EFFECT
from saesweep.experiment.overrides import has_reference
from saesweep.experiment.saelens_cfg import (
    Imported,
    is_v5,
    run_of_runner,
    run_of_sae,
    upgrade_v5,
)
from saesweep.experiment.yaml_text import read_yaml
from saesweep.files import read_json_object, read_text, refuse_links_in_run
from saesweep.hub import download
from saesweep.specs.model_loading import OPT_IN

RUNNER_CFG = "runner_cfg.json"
SAE_CFG = "cfg.json"
OWN = "experiment.yaml"
_OF_OTHER_TOOLS = {
    "ae.pt": "dictionary_learning",
    "sae.safetensors": "sparsify",
    "hyperparams.json": "Llama Scope",
    "params.safetensors": "Gemma Scope 2",
    "params.npz": "Gemma Scope",
}
"""A file beside an SAE -> the tool whose configurations have no fields of a run here."""


def apply_from_cfg(document: Document) -> tuple[list[str], frozenset[Place]]:
    """Replace `base.from_cfg` by the fields it stands for; what the file states itself wins.

    Args:
        document: The experiment.

    Returns:
        Warnings about fields that were not carried over, and the places that the configuration filled.

    Raises:
        UserError: The configuration cannot be found or read.
    """
    base = document.tree.get("base")
    if not isinstance(base, dict) or "from_cfg" not in base:
        return [], frozenset()
    place: Place = ("base", "from_cfg")
    source = base["from_cfg"]
    if not isinstance(source, str) or not source:
        document.add(place, "takes a folder, a file or a Hub id such as user/repo/folder")
        return [], frozenset()
    try:
        imported = read_cfg(source)
    except UserError as error:
        document.add(place, str(error))
        return [], frozenset()
    mark = document.mark(place)
    own = {key: value for key, value in base.items() if key != "from_cfg"}
    merged, filled = _merge(imported.base, own, ("base",))
    for filled_place in filled:
        document.keys[filled_place] = document.values[filled_place] = mark
    document.tree = {**document.tree, "base": merged}
    _check_references(document, place, filled)
    return [f"base.from_cfg: {warning}" for warning in imported.warnings], frozenset(filled)


def _check_references(document: Document, place: Place, filled: Iterable[Place]) -> None:
    """Refuse environment variables that a configuration asks for: a folder that was downloaded looks like one's own.

    `model_name: evil/${env:HF_TOKEN}` would send the token as part of a request.
    """
    references: dict[str, Any] = {}
    for filled_place in filled:
        value: Any = document.tree
        for part in filled_place:
            value = value[part]
        # The parts of a block are places of their own.
        if has_reference(value) and not (len(filled_place) == 2 and filled_place[1] in NESTED):
            references[dotted(filled_place)] = value
    if references:
        again = " ".join(
            f"--set '{path}={value if isinstance(value, str) else json.dumps(value)}'"
            for path, value in references.items()
        )
        document.add(
            place,
            f"sets {', '.join(references)} by references to environment variables, which a file that somebody else may have written "
            f"must not; where it is yours, repeat them beside from_cfg, or by {again}",
        )


def _merge(imported: dict[str, Any], own: dict[str, Any], place: Place) -> tuple[dict[str, Any], list[Place]]:
    merged, filled = dict(own), []
    for key, value in imported.items():
        # One of the two widths in the file replaces the other one's value from the configuration.
        if {"d_sae": "expansion_factor", "expansion_factor": "d_sae"}.get(key) in own:
            continue
        if key not in own:
            merged[key] = value
            filled.append((*place, key))
            if key in NESTED:
                filled += [(*place, key, name) for name in value]
        elif key in NESTED and isinstance(own[key], dict):
            merged[key], below = _merge(value, own[key], (*place, key))
            filled += below
    return merged, filled


def read_cfg(source: str) -> Imported:
    """Return the base run of a folder, a JSON file, or a Hub id `user/repo/folder`.

    Raises:
        UserError: Nothing is there, or it is no configuration of an SAE.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return _read_folder(path)
    if path.is_file():
        return _read_runner(path) if path.name == RUNNER_CFG else _read_any(path)
    parts = source.split("/")
    if source.startswith((".", "/", "~")) or source.endswith(".json") or len(parts) < 2:
        raise UserError(
            f"{source!r} is neither a folder nor a file here, nor a Hub id; name a runner_cfg.json, a cfg.json, the folder of one, "
            "or user/repo/folder"
        )
    repo, folder = "/".join(parts[:2]), "/".join(parts[2:])
    for name in (RUNNER_CFG, SAE_CFG):
        downloaded = download(source, repo, f"{folder}/{name}" if folder else name)
        if downloaded is not None:
            return _read_runner(downloaded) if name == RUNNER_CFG else _read_any(downloaded)
    raise UserError(f"{source!r}: the Hub repository {repo} has neither {RUNNER_CFG} nor {SAE_CFG} in {folder or '/'}")


def _read_folder(folder: Path) -> Imported:
    refuse_links_in_run(folder)
    if (folder / OWN).is_file() and (folder / SAE_CFG).is_file():
        return _read_own(folder / OWN)
    if (folder / RUNNER_CFG).is_file():
        return _read_runner(folder / RUNNER_CFG)
    together = folder.parent / RUNNER_CFG  # SAELens' runner of several SAEs writes one file above their folders
    if together.is_file() and (folder / SAE_CFG).is_file():
        runner = _json(together)
        saes = runner.get("saes")
        if isinstance(saes, dict) and isinstance(saes.get(folder.name), dict):
            hooks = runner.get("hook_names")
            hook = hooks.get(folder.name) if isinstance(hooks, dict) else hooks
            one = {k: v for k, v in runner.items() if k not in ("saes", "hook_names", "hook_head_indices", "evaluator")}
            return run_of_runner({**one, "sae": saes[folder.name], **({"hook_name": hook} if hook else {})})
    if (tool := next((tool for name, tool in _OF_OTHER_TOOLS.items() if (folder / name).is_file()), None)) is not None:
        raise UserError(
            f"{folder} is an SAE of {tool}, which says no settings of a run here; state model_name, hook_name and sae, and "
            "start from its weights by from_pretrained_path"
        )
    if (folder / SAE_CFG).is_file():
        return _read_any(folder / SAE_CFG)
    hint = "; name its best/ folder" if (folder / "best" / SAE_CFG).is_file() else ""
    raise UserError(f"{folder} has neither {RUNNER_CFG} nor {SAE_CFG}{hint}")


def _read_own(path: Path) -> Imported:
    """Read the experiment beside one of our exports: exact, where SAELens' file rounds durations to steps."""
    document = read_yaml(read_text(path, fix="restore it, or export the SAE again"), str(path))
    base = document.tree.get("base")
    if document.problems or not isinstance(base, dict) or "from_cfg" in base:
        raise UserError(f"{path} is not the experiment of an exported SAE")
    # Where its snapshots went: a run that begins from there must not write over them. And whether code may run is for
    # the file that names this folder to say.
    kept = {key: value for key, value in base.items() if key not in ("checkpoint_path", OPT_IN, *WITHOUT_EFFECT)}
    for block in NESTED:
        if isinstance(fields := kept.get(block), dict):
            kept[block] = {key: value for key, value in fields.items() if f"{block}.{key}" not in WITHOUT_EFFECT}
    return Imported(kept)


def _read_runner(path: Path) -> Imported:
    cfg = _json(path)
    if "saes" in cfg and "sae" not in cfg:
        raise UserError(f"{path} is of a run of several SAEs; name the folder of one of them")
    return _read_flat(cfg, path) if "sae" not in cfg else run_of_runner(cfg)


def _read_any(path: Path) -> Imported:
    cfg = _json(path)
    return run_of_runner(cfg) if isinstance(cfg.get("sae"), dict) else _read_flat(cfg, path)


def _read_flat(cfg: dict[str, Any], path: Path) -> Imported:
    if is_v5(cfg):
        run, renamed = upgrade_v5(cfg)
        imported = run_of_runner(run)
        imported.warnings[:0] = renamed
        return imported
    if "architecture" not in cfg and "d_sae" not in cfg:
        raise UserError(f"{path} is no configuration of an SAE: it has neither `sae` nor `architecture`")
    return run_of_sae(cfg)


def _json(path: Path) -> dict[str, Any]:
    return read_json_object(path, fix="restore it, or export the SAE again")
