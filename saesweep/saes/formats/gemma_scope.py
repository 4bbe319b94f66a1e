"""Gemma Scope SAEs: one `params.npz` of JumpReLU weights per folder, described by the folder's name alone."""

# Shape suffix legend:  D = d_in, F = d_sae

from __future__ import annotations

import re
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saesweep.errors import UserError
from saesweep.saes.exported import ExportedSAE
from saesweep.saes.folding import SAELENS_VERSION
from saesweep.saes.formats.place import Place
from saesweep.saes.formats.unread import refuse_transcoder

PARAMS_FILE = "params.npz"

_SITES = {"res": "blocks.{}.hook_resid_post", "mlp": "blocks.{}.hook_mlp_out", "att": "blocks.{}.attn.hook_z"}
# What zipfile, zlib and numpy raise over damaged archives and headers (found by tests/saes/test_fuzz.py).
_DAMAGE = (
    ValueError,
    OSError,
    EOFError,
    KeyError,
    TypeError,
    RuntimeError,
    MemoryError,
    OverflowError,
    SyntaxError,
    tokenize.TokenError,
    zlib.error,
    zipfile.BadZipFile,
)
_CONTEXT_SIZE = 1024
"""Tokens per context in Gemma Scope's training (arXiv 2408.05147, section 3)."""


def read_gemma_scope(place: Place) -> ExportedSAE | None:
    """Read a folder with a `params.npz`, whose path says which model and hook it is of; None where there is none.

    Raises:
        UserError: The file is damaged, or holds other tensors than a JumpReLU SAE has.
    """
    path = place.file(PARAMS_FILE)
    if path is None:
        return None
    if "transcoder" in place.origin:
        refuse_transcoder(place.name)
    return _load(path, place.origin)


def _load(path: Path, origin: str) -> ExportedSAE:
    """Read a `params.npz`; no pickle inside it is ever opened."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
            tensors = {_name(key): torch.from_numpy(np.asarray(data[key], dtype=np.float32)) for key in data}
    except _DAMAGE as error:
        raise UserError(f"{path}: not a readable {PARAMS_FILE} ({error}); download it again") from None
    if "W_dec" not in tensors or tensors["W_dec"].ndim != 2:
        raise UserError(f"{path}: has no matrix W_dec; a Gemma Scope SAE has W_enc, W_dec, b_enc, b_dec and threshold")
    if bad := [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]:
        raise UserError(f"{path}: NaN or infinite values in {', '.join(bad)}; download it again")
    d_sae, d_in = tensors["W_dec"].shape
    if "embedding" in Path(origin).parts:
        tensors = _unscale_embedding(tensors, d_in)
    cfg: dict[str, Any] = {
        "architecture": "jumprelu",
        "d_in": d_in,
        "d_sae": d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": False,
        "normalize_activations": "none",
        "reshape_activations": "hook_z" if "-att" in origin else "none",
        "metadata": {"sae_lens_version": SAELENS_VERSION, **_described(origin)},
    }
    try:
        return ExportedSAE("jumprelu", cfg, {name: t.contiguous() for name, t in tensors.items()})
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None


def _name(key: str) -> str:
    return f"W_{key[2:]}" if key.startswith("w_") else key


def _unscale_embedding(tensors: dict[str, Tensor], d_in: int) -> dict[str, Tensor]:
    """Gemma multiplies embeddings by sqrt(d_in) after the hook, and those SAEs saw them after it; as SAELens undoes it."""
    return tensors | {"W_enc": tensors["W_enc"] / d_in**0.5, "W_dec": tensors["W_dec"] * d_in**0.5}


def _described(origin: str) -> dict[str, Any]:
    """Return the metadata that the name of a Gemma Scope folder implies; nothing where it is named differently."""
    match = re.search(r"gemma-scope-(\d+b)-(pt|it)-(res|mlp|att)", origin)
    layer = re.search(r"layer_(\d+)", origin)
    if match is None:
        return {}
    size, tuning, site = match.groups()
    hook = _SITES[site].format(layer.group(1)) if layer else "hook_embed"
    return {
        "model_name": f"google/gemma-2-{size}{'-it' if tuning == 'it' else ''}",
        "model_class_name": "TransformerBridge",
        "hook_name": hook,
        "hook_head_index": None,
        "dataset_path": "monology/pile-uncopyrighted",
        "context_size": _CONTEXT_SIZE,
        "prepend_bos": True,
    }
