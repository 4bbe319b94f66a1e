"""From what a user names to a published SAE: a folder, a file in it, a place on the Hub, or a name of SAELens' table."""

from __future__ import annotations

from pathlib import Path

from saesweep.errors import UserError
from saesweep.files import is_run_directory, refuse_links_in_run
from saesweep.hub import HubError
from saesweep.saes.exported import ExportedSAE
from saesweep.saes.folder import CFG_FILE
from saesweep.saes.formats import registry
from saesweep.saes.formats.place import HubFolder, LocalFolder
from saesweep.saes.formats.table import NAMED_FILES, read_file, read_place


def open_sae(source: str | Path) -> ExportedSAE:
    """Read a published SAE on the CPU. Only JSON, safetensors, plain arrays and plain tensors are read: no code is ever unpickled.

    Args:
        source: A folder of saesweep, SAELens (5 or 6), Gemma Scope (1 or 2), dictionary_learning, sparsify or Llama Scope, or
            the file of it that holds the weights; a run directory of saesweep (its `best/`); a `layer<n>.sae.pt` of Qwen
            Scope; a Hub id `user/repo/folder` of any of them; or `release/sae_id` of SAELens' table, where that is installed.

    Raises:
        UserError: Nothing is there, or it is no SAE.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return _open_folder(path)
    if path.exists():
        sae = read_file(LocalFolder(path.parent), path.name)
        if sae is None:
            raise UserError(
                f"{path}: is a file; name the folder of an SAE, or one of {', '.join(NAMED_FILES)}, layer<n>.sae.pt"
            )
        return sae
    return open_on_hub(str(source))


def _open_folder(folder: Path) -> ExportedSAE:
    refuse_links_in_run(folder)
    if (folder / CFG_FILE).is_file():
        return read_place(LocalFolder(folder))
    best = folder / "best"
    if is_run_directory(folder) and not (best / CFG_FILE).is_file():
        raise UserError(f"{best}: no exported SAE yet; wait for the run to end, or name a folder trials/<number>/sae")
    return read_place(LocalFolder(best if (best / CFG_FILE).is_file() else folder))


def open_on_hub(source: str, revision: str | None = None) -> ExportedSAE:
    """Read an SAE of the Hub.

    Args:
        source: `user/repo/folder`, or `release/sae_id` of SAELens' table.
        revision: Branch, tag or commit; the main branch when left out.

    Raises:
        UserError: It is no such name, nothing is there, or it is no SAE.
    """
    parts = source.split("/")
    if source.startswith((".", "/", "~")) or len(parts) < 2 or not all(parts):
        raise UserError(f"{source!r} is neither a folder here nor a Hub id such as user/repo/folder")
    entry = registry.look_up(source)
    if entry is not None:
        path = tuple(part for part in entry.path.split("/") if part not in ("", "."))
        return registry.corrected(_read(source, entry.repo, path, revision), entry)
    try:
        return _read(source, "/".join(parts[:2]), tuple(parts[2:]), revision)
    except HubError as error:
        if registry.is_installed():
            raise
        raise UserError(f"{error}; {registry.HINT}") from None


def _read(source: str, repo: str, path: tuple[str, ...], revision: str | None) -> ExportedSAE:
    if path:
        sae = read_file(HubFolder(source, repo, path[:-1], revision), path[-1])
        if sae is not None:
            return sae
    return read_place(HubFolder(source, repo, path, revision))
