"""Downloads a published SAE from the Hub into a folder of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

from saesweep.errors import UserError
from saesweep.publish.push import PUBLISHED
from saesweep.runs import replace_folder
from saesweep.saes import ExportedSAE, open_sae, save_sae_folder
from saesweep.saes.folder import CFG_FILE, WEIGHTS_FILE
from saesweep.saes.formats import registry
from saesweep.saes.formats.place import HubFolder
from saesweep.saes.open_sae import open_on_hub


def pull(source: str, to: str | Path, *, revision: str | None = None) -> ExportedSAE:
    """Copy the SAE at `user/repo/folder` of the Hub, with what lies beside it, into a folder: whole, or not at all.

    Args:
        source: Hub id and folder of saesweep or SAELens; or of any other format that `open_sae` reads, which is stored in
            SAELens' format.
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
    found: dict[str, Path] = {}
    converted: ExportedSAE | None = None
    if registry.look_up(source) is None:
        place = HubFolder(source, "/".join(parts[:2]), tuple(parts[2:]), revision)
        if place.file(CFG_FILE) is not None and place.file(WEIGHTS_FILE) is not None:
            found = {name: file for name in PUBLISHED if (file := place.file(name)) is not None}
    if not found:
        # Its place on the Hub may say which model and hook it is of; a copy of the files elsewhere would not.
        converted = open_on_hub(source.strip("/"), revision)

    def fill(folder: Path) -> None:
        if converted is not None:
            save_sae_folder(folder, converted, sparsity_F=None)
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
