"""Llama Scope SAEs (OpenMOSS): `hyperparams.json`, and weights in `checkpoints/final.safetensors` as they were trained.

They see activations times sqrt(d_model) / `dataset_average_activation_norm`. OpenMOSS folds that into the weights so that latents are in
the units of raw activations, makes decoder rows unit vectors, and compares *these* latents with `jump_relu_threshold`.
"""

# Shape suffix legend:  D = d_in, F = d_sae

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor

from saesweep.errors import UserError
from saesweep.files import read_json_object
from saesweep.saes.exported import ExportedSAE
from saesweep.saes.formats.place import Place, needed
from saesweep.saes.formats.unread import refuse, refuse_transcoder
from saesweep.saes.formats.weights import (
    DOWNLOAD_AGAIN,
    built,
    read_safetensors,
    required,
    text,
    whole,
    with_unit_decoder,
)

CONFIG_FILE = "hyperparams.json"
WEIGHTS_FILE = "checkpoints/final.safetensors"
MODEL_FILE = "lm_config.json"


def read_llama_scope(place: Place) -> ExportedSAE | None:
    """Read a folder with a `hyperparams.json`; None where there is none.

    Raises:
        UserError: A file is missing or damaged, or it is no SAE of an architecture here.
    """
    config_path = place.file(CONFIG_FILE)
    if config_path is None:
        return None
    config = read_json_object(config_path, fix=DOWNLOAD_AGAIN)
    hook = text(config.get("hook_point_in"))
    if config.get("hook_point_out") not in (None, hook):
        refuse_transcoder(place.name)
    if config.get("use_glu_encoder"):
        refuse(place.name, "an SAE of OpenMOSS with a gated linear unit as its encoder")
    path = needed(place, WEIGHTS_FILE, CONFIG_FILE)
    tensors, mode = _folded(config_path, config, path, _weights(path, config))
    for key, axis in (("d_sae", 0), ("d_model", 1)):
        if key in config and config[key] != tensors["W_dec"].shape[axis]:
            raise UserError(
                f"{config_path}: {key} is {config[key]!r}, but the weights have {tensors['W_dec'].shape[axis]}"
            )
    architecture, fields, threshold = _activation(config_path, config)
    if threshold is not None:
        tensors["threshold"] = torch.full_like(tensors["b_enc"], threshold)
    return built(
        path,
        architecture,
        tensors,
        centred=bool(config.get("apply_decoder_bias_to_pre_encoder", True)),
        normalize_activations=mode,
        metadata=_described(place, hook),
        **fields,
    )


def _weights(path: Path, config: Mapping[str, Any]) -> dict[str, Tensor]:
    shapes = {"encoder.weight": 2, "encoder.bias": 1, "decoder.weight": 2}
    tensors = read_safetensors(path)
    W_enc_FD, b_enc_F, W_dec_DF = required(path, tensors, shapes, "a Llama Scope SAE")
    if config.get("use_decoder_bias", True):
        (b_dec_D,) = required(path, tensors, {"decoder.bias": 1}, "a Llama Scope SAE with use_decoder_bias")
    else:
        b_dec_D = torch.zeros(W_dec_DF.shape[0])
    return {"W_enc": W_enc_FD.T, "b_enc": b_enc_F, "W_dec": W_dec_DF.T, "b_dec": b_dec_D}


def _folded(
    config_path: Path, config: Mapping[str, Any], path: Path, tensors: dict[str, Tensor]
) -> tuple[dict[str, Tensor], str]:
    """Return weights of raw activations as OpenMOSS folds them, and the per-token normalisation that is left."""
    normalised = config.get("norm_activation", "token-wise")
    mode = "none"
    if normalised == "dataset-wise":
        scale = math.sqrt(tensors["W_dec"].shape[1]) / _average_norm(config_path, config)
        tensors = tensors | {"b_enc": tensors["b_enc"] / scale, "b_dec": tensors["b_dec"] / scale}
    elif normalised == "token-wise":
        mode = "constant_norm_rescale"
    elif normalised not in ("inference", "none"):
        raise UserError(
            f"{config_path}: norm_activation is {normalised!r}, which depends on the batch; no architecture here does that"
        )
    if config.get("sparsity_include_decoder_norm", True):
        tensors = with_unit_decoder(path, tensors)
    return tensors, mode


def _average_norm(config_path: Path, config: Mapping[str, Any]) -> float:
    norms = config.get("dataset_average_activation_norm")
    norms = norms if isinstance(norms, dict) else {}
    found = norms.get("in")
    if not _is_number(found) or not 1e-30 < found < 1e30 or norms.get("out", found) != found:
        raise UserError(
            f"{config_path}: dataset_average_activation_norm must have the same positive number as in and out, got "
            f"{config.get('dataset_average_activation_norm')!r}; {DOWNLOAD_AGAIN}"
        )
    return float(found)


def _activation(config_path: Path, config: Mapping[str, Any]) -> tuple[str, dict[str, Any], float | None]:
    """Return the architecture, its fields and its threshold; a TopK that has one is read by it, as OpenMOSS does."""
    name, threshold = config.get("act_fn", "relu"), config.get("jump_relu_threshold")
    if name == "relu":
        return "standard", {}, None
    if name == "topk" and threshold in (None, 0):
        return "topk", {"k": whole(config, "top_k", config_path), "rescale_acts_by_decoder_norm": False}, None
    if name not in ("jumprelu", "topk"):
        raise UserError(f"{config_path}: act_fn must be relu, jumprelu or topk, got {name!r}")
    if not _is_number(threshold) or not 0 <= threshold < 1e30:
        raise UserError(
            f"{config_path}: jump_relu_threshold must be a number from 0, got {threshold!r}; {DOWNLOAD_AGAIN}"
        )
    return "jumprelu", {}, float(threshold)


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _described(place: Place, hook: str | None) -> dict[str, Any]:
    model_path = place.file(MODEL_FILE)
    model = None if model_path is None else text(read_json_object(model_path, fix=DOWNLOAD_AGAIN).get("model_name"))
    is_release = re.search(r"Llama3_1-8B-Base-L", place.origin) is not None
    if model is None and is_release:
        model = "meta-llama/Llama-3.1-8B"
    return {
        "model_name": model,
        "model_class_name": "TransformerBridge" if hook else None,
        "hook_name": hook,
        "dataset_path": "cerebras/SlimPajama-627B" if is_release else None,
        "context_size": 1024 if is_release else None,
        "prepend_bos": True if is_release else None,
    }
