"""Downloads a published SAE from the Hub into a folder of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

from saesweep.errors import UserError
from saesweep.experiment.hub import download
from saesweep.publish.push import PUBLISHED
from saesweep.runs import replace_folder
from saesweep.saes import ExportedSAE, open_sae, save_sae_folder
from saesweep.saes.folder import CFG_FILE, WEIGHTS_FILE
from saesweep.saes.gemma_scope import PARAMS_FILE, load_gemma_scope


def pull(source: str, to: str | Path, *, revision: str | None = None) -> ExportedSAE:
    """Copy the SAE at `user/repo/folder` of the Hub, with what lies beside it, into a folder: whole, or not at all.

    Args:
        source: Hub id and folder, of saesweep, SAELens or Gemma Scope (`params.npz`, which is stored in SAELens' format).
        to: The folder; one that exists is replaced.
        revision: Branch, tag or commit; the main branch when left out.

    Returns:
        The SAE, read from the copy.

    Raises:
        UserError: Nothing is there, the Hub cannot be reached, or the files are no SAE. The folder is as it was.
    """
    parts = source.strip("/").split("/")
    if len(parts) < 2 or not all(parts) or source.startswith((".", "/", "~")):
        raise UserError(f"{source!r} is no place on the Hub; write user/repo/folder")
    repo = "/".join(parts[:2])
    prefix = "".join(f"{part}/" for part in parts[2:] if part != PARAMS_FILE)
    found: dict[str, Path] = {}
    for name in PUBLISHED if PARAMS_FILE not in parts else ():
        file = download(source, repo, f"{prefix}{name}", revision=revision)
        if file is None and name == CFG_FILE:
            break
        if file is not None:
            found[name] = file
    if CFG_FILE in found and WEIGHTS_FILE not in found:
        raise UserError(f"{source!r}: the Hub repository {repo} has {CFG_FILE} there, but no {WEIGHTS_FILE}")
    if not found:
        params = download(source, repo, f"{prefix}{PARAMS_FILE}", revision=revision)
        if params is None:
            raise UserError(
                f"{source!r}: the Hub repository {repo} has neither {CFG_FILE} nor {PARAMS_FILE} in {prefix or '/'}"
            )
        found[PARAMS_FILE] = params

    def fill(folder: Path) -> None:
        if PARAMS_FILE in found:
            # Its place on the Hub says which model and hook it is of; a copy elsewhere would not.
            save_sae_folder(folder, load_gemma_scope(found[PARAMS_FILE], origin=source), sparsity_F=None)
            return
        for name, file in found.items():
            shutil.copyfile(file, folder / name)
        try:
            open_sae(folder)  # a damaged download never takes the place of what is there
        except UserError as error:
            raise UserError(f"{source!r}: what the Hub has there is no SAE: {error}") from None

    target = Path(to).expanduser().resolve()
    replace_folder(target, fill)
    return open_sae(target)
