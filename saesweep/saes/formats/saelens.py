"""Folders of saesweep and SAELens: `cfg.json` and `sae_weights.safetensors`."""

from __future__ import annotations

from saesweep.saes.exported import ExportedSAE
from saesweep.saes.folder import CFG_FILE, WEIGHTS_FILE, load_sae_folder
from saesweep.saes.formats.place import Place, needed


def read_saelens(place: Place) -> ExportedSAE | None:
    """Read a folder with a `cfg.json`; None where there is none.

    Raises:
        UserError: The weights are missing, a file is damaged, or the architecture is not one of those here.
    """
    cfg = place.file(CFG_FILE)
    if cfg is None:
        return None
    needed(place, WEIGHTS_FILE, CFG_FILE)
    return load_sae_folder(cfg.parent)
