"""All formats of published SAEs, in the order in which a folder is asked for them."""

from __future__ import annotations

from collections.abc import Callable

from saesweep.errors import UserError
from saesweep.saes.exported import ExportedSAE
from saesweep.saes.formats import (
    dictionary_learning,
    gemma_scope,
    gemma_scope_2,
    llama_scope,
    qwen_scope,
    saelens,
    sparsify,
    unread,
)
from saesweep.saes.formats.place import Place

Reader = Callable[[Place], ExportedSAE | None]

FORMATS: tuple[tuple[str, Reader], ...] = (
    ("cfg.json with sae.safetensors (sparsify)", sparsify.read_sparsify),
    ("cfg.json with sae_weights.safetensors (saesweep, SAELens)", saelens.read_saelens),
    ("params.npz (Gemma Scope)", gemma_scope.read_gemma_scope),
    ("params.safetensors (Gemma Scope 2)", gemma_scope_2.read_gemma_scope_2),
    ("config.json with ae.pt (dictionary_learning)", dictionary_learning.read_dictionary_learning),
    ("hyperparams.json with checkpoints/final.safetensors (Llama Scope)", llama_scope.read_llama_scope),
)
"""Files that a format is known by, for messages -> its reader."""

NAMED_FILES = (
    gemma_scope.PARAMS_FILE,
    gemma_scope_2.WEIGHTS_FILE,
    dictionary_learning.WEIGHTS_FILE,
    sparsify.WEIGHTS_FILE,
)
"""Files that may be named in place of their folder."""


def read_place(place: Place) -> ExportedSAE:
    """Read the SAE in a folder.

    Raises:
        UserError: There is none, or it is damaged or of a kind that is not read.
    """
    for _, read in FORMATS:
        sae = read(place)
        if sae is not None:
            return sae
    unread.read_temporal(place)
    known = "; ".join([*(files for files, _ in FORMATS), "or name one layer<n>.sae.pt (Qwen Scope)"])
    raise UserError(f"{place.name}: holds no SAE of a format that is read here: {known}")


def read_file(place: Place, name: str) -> ExportedSAE | None:
    """Read the SAE that one file's name stands for; None for other names.

    Raises:
        UserError: The file is not there, damaged, or of a kind that is not read.
    """
    if name in NAMED_FILES:
        return read_place(place)
    if qwen_scope.FILE.fullmatch(name):
        sae = qwen_scope.read_qwen_scope(place, name)
        if sae is None:
            raise UserError(f"{place.name}: there is no {name}")
        return sae
    return None
