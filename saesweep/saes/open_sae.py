"""From what a user names to a published SAE: a folder, a `params.npz`, or a place on the Hub."""

from __future__ import annotations

from pathlib import Path

from saesweep.errors import UserError
from saesweep.experiment.hub import download
from saesweep.files import refuse_links_in_run
from saesweep.saes.exported import ExportedSAE
from saesweep.saes.folder import CFG_FILE, WEIGHTS_FILE, load_sae_folder
from saesweep.saes.gemma_scope import PARAMS_FILE, load_gemma_scope


def open_sae(source: str | Path) -> ExportedSAE:
    """Read a published SAE on the CPU. Only JSON, safetensors and plain numpy arrays are read: no code, no pickle.

    Args:
        source: A folder of saesweep or SAELens (5 or 6), a run directory of saesweep (its `best/`), a Gemma Scope folder
            or `params.npz`, or a Hub id `user/repo/folder` of either format.

    Raises:
        UserError: Nothing is there, or it is no SAE.
    """
    path = Path(source).expanduser()
    if path.name == PARAMS_FILE and path.is_file():
        return load_gemma_scope(path.absolute())
    if path.is_dir():
        return _open_folder(path)
    if path.exists():
        raise UserError(f"{path}: is a file; name the folder of an SAE, or a {PARAMS_FILE}")
    return _open_hub(str(source))


def _open_folder(folder: Path) -> ExportedSAE:
    refuse_links_in_run(folder)
    if (folder / CFG_FILE).is_file():
        return load_sae_folder(folder)
    if (folder / PARAMS_FILE).is_file():
        return load_gemma_scope((folder / PARAMS_FILE).absolute())
    if (folder / "best" / CFG_FILE).is_file():
        return load_sae_folder(folder / "best")
    raise UserError(f"{folder}: holds no SAE: neither {CFG_FILE} with {WEIGHTS_FILE} nor {PARAMS_FILE}")


def _open_hub(source: str) -> ExportedSAE:
    parts = source.split("/")
    if source.startswith((".", "/", "~")) or len(parts) < 2 or not all(parts):
        raise UserError(f"{source!r} is neither a folder here nor a Hub id such as user/repo/folder")
    repo = "/".join(parts[:2])
    folder = "".join(f"{part}/" for part in parts[2:] if part != PARAMS_FILE)
    cfg = download(source, repo, f"{folder}{CFG_FILE}")
    if cfg is not None:
        if download(source, repo, f"{folder}{WEIGHTS_FILE}") is None:
            raise UserError(f"{source!r}: the Hub repository {repo} has {CFG_FILE} there, but no {WEIGHTS_FILE}")
        return load_sae_folder(cfg.parent)
    params = download(source, repo, f"{folder}{PARAMS_FILE}")
    if params is None:
        raise UserError(
            f"{source!r}: the Hub repository {repo} has neither {CFG_FILE} nor {PARAMS_FILE} in {folder or '/'}"
        )
    return load_gemma_scope(params, origin=source)
