"""Published dictionaries that are no SAE of one of the architectures here: each is named as what it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from saesweep.errors import UserError
from saesweep.saes.formats.place import Place

TRANSCODER = "a transcoder of a format of which SAEs alone are read"
KINDS = {
    "temporal": "a temporal SAE, whose latents depend on the tokens before",
    "crosscoder": "a crosscoder, which reads several hooks or models at once",
    "clt": "a cross-layer transcoder, which writes to many layers",
}
"""Name of an architecture elsewhere -> what to say of it."""
_TEMPORAL_FILE = "conf.yaml"
_TEMPORAL_WEIGHTS = "latest_ckpt.safetensors"


def refuse(name: str, what: str) -> NoReturn:
    """Say of what kind a dictionary is that cannot be read.

    Args:
        name: Where it is.
        what: Such as `a temporal SAE`.

    Raises:
        UserError: Always.
    """
    raise UserError(f"{name}: is {what}; this version does not read it")


def refuse_transcoder(name: str) -> NoReturn:
    """Say that a dictionary is a transcoder.

    Raises:
        UserError: Always.
    """
    refuse(name, TRANSCODER)


def refuse_by_architecture(name: str, cfg: Mapping[str, Any]) -> None:
    """Refuse a configuration of SAELens whose architecture is known, but not read.

    Raises:
        UserError: It is.
    """
    for key in ("architecture", "type", "sae_type"):
        kind = cfg.get(key)
        if isinstance(kind, str) and kind in KINDS:
            refuse(name, KINDS[kind])


def read_temporal(place: Place) -> None:
    """Refuse temporal SAEs as their authors publish them; None where there is none.

    Raises:
        UserError: There is one.
    """
    if place.file(_TEMPORAL_FILE) is not None and place.file(_TEMPORAL_WEIGHTS) is not None:
        refuse(place.name, KINDS["temporal"])
