"""Gemma Scope 2 SAEs and transcoders, of Gemma 3: `config.json` and JumpReLU weights in `params.safetensors`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from saesweep.errors import UserError
from saesweep.experiment.hook_names import INPUT
from saesweep.files import read_json_object
from saesweep.saes.exported import ExportedSAE
from saesweep.saes.formats.place import Place
from saesweep.saes.formats.unread import KINDS, refuse, refuse_by_architecture
from saesweep.saes.formats.weights import DOWNLOAD_AGAIN, built, read_safetensors, required, text

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "params.safetensors"

_SITES = {
    "resid_post": ("blocks.{}.hook_resid_post", "model.layers.{}"),
    "attn_out": ("blocks.{}.attn.hook_z", f"model.layers.{{}}.self_attn.o_proj{INPUT}"),
    "mlp_out": ("blocks.{}.hook_mlp_out", "model.layers.{}.post_feedforward_layernorm"),
}
"""Word in the folder's name -> hook in both libraries' names."""
_SITES_BY_MODULE = {
    "output": "resid_post",
    "self_attn.o_proj.input": "attn_out",
    "post_feedforward_layernorm.output": "mlp_out",
}
"""What follows `model.layers.N.` in `hf_hook_point_in` -> the same word."""
_SHAPES = {"w_enc": 2, "b_enc": 1, "threshold": 1, "w_dec": 2, "b_dec": 1}


def read_gemma_scope_2(place: Place) -> ExportedSAE | None:
    """Read a folder with a `params.safetensors`; None where there is none.

    Older folders have no `config.json`: there the folder's name says what the SAE is of.

    Raises:
        UserError: A file is damaged, or it is a transcoder of several layers.
    """
    path = place.file(WEIGHTS_FILE)
    if path is None:
        return None
    config_path = place.file(CONFIG_FILE)
    config = {} if config_path is None else read_json_object(config_path, fix=DOWNLOAD_AGAIN)
    refuse_by_architecture(place.name, config)
    if config.get("architecture", "jump_relu") not in ("jump_relu", "jumprelu"):
        raise UserError(
            f"{config_path}: architecture must be jump_relu, got {config['architecture']!r}; {DOWNLOAD_AGAIN}"
        )
    point_in, point_out = text(config.get("hf_hook_point_in")), text(config.get("hf_hook_point_out"))
    parts = Path(place.origin).parts
    for kind in ("clt", "crosscoder"):
        if any(kind in part for part in parts[-2:]):
            refuse(place.name, KINDS[kind])
    tensors = read_safetensors(path)
    w_enc_DF, b_enc_F, threshold_F, w_dec_FD, b_dec_D = required(path, tensors, _SHAPES, "a Gemma Scope 2 SAE")
    site, described = _described(parts, point_in, text(config.get("model_name")))
    weights = {"W_enc": w_enc_DF, "b_enc": b_enc_F, "threshold": threshold_F, "W_dec": w_dec_FD, "b_dec": b_dec_D}
    is_transcoder = config.get("type") == "transcoder" or any("transcoder" in part for part in parts[-2:])
    if is_transcoder or point_out not in (None, point_in):
        skip_DO = tensors.get("affine_skip_connection")
        return built(
            path,
            "jumprelu_transcoder" if skip_DO is None else "jumprelu_skip_transcoder",
            weights if skip_DO is None else {**weights, "W_skip": skip_DO.T},
            centred=False,
            metadata=described | _hooks_of_transcoder(parts, point_in, point_out),
            d_out=w_dec_FD.shape[1],
        )
    return built(
        path,
        "jumprelu",
        weights,
        centred=False,
        reshape_activations="hook_z" if site == "attn_out" else "none",
        metadata=described,
    )


def _described(parts: tuple[str, ...], point_in: str | None, model: str | None) -> tuple[str | None, dict[str, Any]]:
    """Return the site and the metadata that a configuration, or else the folder's name, implies."""
    stated = re.fullmatch(r"model(?:\.language_model)?\.layers\.(\d+)\.(.+)", point_in or "")
    if stated is not None:
        layer, site = stated[1], _SITES_BY_MODULE.get(stated[2])
    else:
        named = re.search(r"layer_(\d+)", parts[-1])
        layer = None if named is None else named[1]
        site = next((word for word in _SITES if any(word in part for part in parts[-2:])), None)
    hook, module = (None, None) if site is None or layer is None else (n.format(layer) for n in _SITES[site])
    repo = re.search(r"gemma-scope-2-([0-9a-z]+-(?:pt|it))", "/".join(parts))
    return site, {
        "model_name": _model_name(model or (repo and f"gemma-3-{repo[1]}")),
        "model_class_name": "TransformerBridge" if hook else None,
        "hook_name": hook,
        "hf_hook_name": module,
        "dataset_path": "monology/pile-uncopyrighted",
        "context_size": 1024,
        "prepend_bos": True,
    }


def _hooks_of_transcoder(parts: tuple[str, ...], point_in: str | None, point_out: str | None) -> dict[str, Any]:
    """Return the hooks around the MLP, by the names of both libraries, as far as configuration and folder name them."""
    layer = re.search(r"layers\.(\d+)\.", point_in or "") or re.search(r"layer_(\d+)", parts[-1])
    return {
        "model_class_name": "TransformerBridge" if layer else None,
        "hook_name": f"blocks.{layer[1]}.hook_mlp_in" if layer else None,
        "hook_name_out": f"blocks.{layer[1]}.hook_mlp_out" if layer else None,
        "hf_hook_name": _module(point_in),
        "hf_hook_name_out": _module(point_out),
    }


def _module(point: str | None) -> str | None:
    """Return a hook point such as `model.layers.9.mlp.output` as a module's output or input."""
    if point is None:
        return None
    name = point.replace("model.language_model.", "model.")
    return f"{name.removesuffix('.input')}{INPUT}" if name.endswith(".input") else name.removesuffix(".output")


def _model_name(name: str | None) -> str | None:
    """Return the Hub id of a model: some configurations leave the user out, or say `gemma-v3`."""
    if name is None:
        return None
    name = (name if "/" in name else f"google/{name}").replace("-v3", "-3")
    return name.replace("-pt", "") if "270m" in name else name
