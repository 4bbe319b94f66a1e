"""Names of SAELens' own table (`release/sae_id`), where the package is installed: they stand for places on the Hub.

Only the table is read, and the package is not imported: it needs another version of TransformerLens.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from saesweep.errors import UserError
from saesweep.saes.exported import ExportedSAE
from saesweep.saes.formats.unread import KINDS, TRANSCODER, refuse

TABLE = "pretrained_saes.yaml"
HINT = (
    "a name of SAELens' table (release/sae_id) is read where that package is installed, of which only the table is used: "
    "pip install --no-deps sae-lens"
)
_UNREAD = {
    "gemma_2_transcoder": TRANSCODER,
    "mwhanna_transcoder": TRANSCODER,
    "mntss_clt_layer_transcoder": KINDS["clt"],
    "temporal": KINDS["temporal"],
    "connor_rob_hook_z": "in a format of its own (`connor_rob_hook_z` in SAELens)",
    "goodfire": "in a format of its own (`goodfire` in SAELens)",
    "deepseek_r1": "in a format of its own (`deepseek_r1` in SAELens)",
    "llama_scope_r1_distill": "in the later format of OpenMOSS (`llama_scope_r1_distill` in SAELens)",
}
"""`conversion_func` in the table -> what to say of an SAE that no reader here takes."""


@dataclass(frozen=True)
class Entry:
    """A line of the table."""

    repo: str
    """`user/name`."""
    path: str
    """Folder or file in the repository."""
    model: str | None
    overrides: Mapping[str, Any]
    """Fields of the configuration that SAELens corrects."""


def look_up(source: str) -> Entry | None:
    """Return where an SAE of SAELens' table is; None where the package is not installed, or has no such release.

    Args:
        source: `release/sae_id`.

    Raises:
        UserError: The release is in the table, but not that SAE, or nothing here reads it.
    """
    release, _, sae_id = source.partition("/")
    found = _release(release)
    if found is None:
        return None
    paths = {str(sae["id"]): str(sae["path"]) for sae in found["saes"]}
    if sae_id not in paths:
        near = difflib.get_close_matches(sae_id, paths, n=3, cutoff=0.0)
        raise UserError(
            f"{source!r}: SAELens' release {release} has no {sae_id or 'SAE without a name'}; nearest: {', '.join(near)}"
        )
    kind = found.get("conversion_func")
    if kind in _UNREAD:
        refuse(repr(source), _UNREAD[kind])
    if kind == "gemma_3" and "clt" in paths[sae_id]:
        refuse(repr(source), KINDS["clt"])
    return Entry(found["repo_id"], paths[sae_id], found.get("model"), found.get("config_overrides") or {})


def corrected(sae: ExportedSAE, entry: Entry) -> ExportedSAE:
    """Return an SAE with the fields that the table corrects, and the model where its own files do not say it."""
    overrides = dict(entry.overrides)
    cfg = {**sae.cfg, **{name: overrides.pop(name) for name in list(overrides) if name in sae.cfg}}
    metadata = {**({"model_name": entry.model} if entry.model else {}), **sae.metadata, **overrides}
    return ExportedSAE(sae.architecture, {**cfg, "metadata": metadata}, sae.tensors)


def is_installed() -> bool:
    """Return whether SAELens' table is on this machine."""
    return _table() is not None


def _table() -> Path | None:
    spec = find_spec("sae_lens")
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    return next((path for folder in folders if (path := Path(folder) / TABLE).is_file()), None)


@lru_cache(maxsize=1)
def _read(table: Path) -> dict[str, Any]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # tens of thousands of lines: five times as fast
    found = yaml.load(table.read_text(encoding="utf-8"), Loader=loader)
    return found if isinstance(found, dict) else {}


def _release(name: str) -> Mapping[str, Any] | None:
    table = _table()
    if table is None or not name or f"{name}:" not in table.read_text(encoding="utf-8"):
        return None
    found = _read(table).get(name)
    return found if isinstance(found, dict) else None
