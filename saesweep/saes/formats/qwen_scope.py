"""Qwen Scope SAEs: a TopK per layer in `layer<n>.sae.pt`, in a repository whose name says model, width and k."""

from __future__ import annotations

import re

from saesweep.errors import UserError
from saesweep.saes.exported import ExportedSAE
from saesweep.saes.formats.place import Place
from saesweep.saes.formats.weights import DOWNLOAD_AGAIN, built, read_torch, required

FILE = re.compile(r"layer(\d+)\.sae\.pt")
_REPO = re.compile(r"SAE-Res-(Qwen[\w.-]+?)-W(\d+)K-L0_(\d+)")
_SHAPES = {"W_enc": 2, "b_enc": 1, "W_dec": 2, "b_dec": 1}


def read_qwen_scope(place: Place, file: str) -> ExportedSAE | None:
    """Read one layer's file; None where it is not there. Nothing but plain tensors is unpickled.

    Of the k largest pre-activations one that is negative counts as 0, as in SAELens.

    Args:
        place: The folder.
        file: The name, which `FILE` matches.

    Raises:
        UserError: The file is damaged, or no folder's name says what k is.
    """
    path, layer = place.file(file), FILE.fullmatch(file)
    if path is None or layer is None:
        return None
    found = _REPO.search(place.origin)
    if found is None:
        raise UserError(
            f"{path}: a Qwen Scope SAE's k is said by its repository's name alone; keep the file in a folder of that name, "
            "such as SAE-Res-Qwen3-1.7B-Base-W32K-L0_50"
        )
    model, thousands, k = found[1], int(found[2]), int(found[3])
    W_enc_FD, b_enc_F, W_dec_DF, b_dec_D = required(path, read_torch(path), _SHAPES, "a Qwen Scope SAE")
    if W_enc_FD.shape[0] != thousands * 1024:
        raise UserError(
            f"{path}: has {W_enc_FD.shape[0]} latents, but {found[0]} says {thousands * 1024}; {DOWNLOAD_AGAIN}"
        )
    return built(
        path,
        "topk",
        {"W_enc": W_enc_FD.T, "b_enc": b_enc_F, "W_dec": W_dec_DF.T, "b_dec": b_dec_D},
        centred=False,
        k=k,
        rescale_acts_by_decoder_norm=False,
        metadata={
            "model_name": f"Qwen/{model}",
            "model_class_name": "TransformerBridge",
            "hook_name": f"blocks.{layer[1]}.hook_resid_post",
            "hf_hook_name": f"model.layers.{layer[1]}",
        },
    )
