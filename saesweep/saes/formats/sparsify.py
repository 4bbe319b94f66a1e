"""SAEs of sparsify (EleutherAI): a folder per hook with `cfg.json` and `sae.safetensors`, the run's `config.json` above."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saesweep.errors import UserError
from saesweep.files import read_json_object
from saesweep.saes.exported import ExportedSAE
from saesweep.saes.formats.place import Place, needed
from saesweep.saes.formats.unread import refuse, refuse_transcoder
from saesweep.saes.formats.weights import DOWNLOAD_AGAIN, built, read_safetensors, required, text, whole

CONFIG_FILE = "cfg.json"
WEIGHTS_FILE = "sae.safetensors"
RUN_FILE = "config.json"

_MODULE = re.compile(r"(?:layers|h)\.\d+(?:\.[A-Za-z_][\w.]*)?")
"""A folder's name: a module of the model's body."""


def read_sparsify(place: Place) -> ExportedSAE | None:
    """Read a folder of sparsify; None where there is none.

    The encoder subtracts `b_dec` from its input, whatever `normalize_decoder` says, as sparsify's own does.

    Raises:
        UserError: A file is missing or damaged, or it is no TopK SAE.
    """
    config_path = place.file(CONFIG_FILE)
    if config_path is None:
        return None
    config = read_json_object(config_path, fix=DOWNLOAD_AGAIN)
    if "normalize_decoder" not in config or "d_in" not in config:
        return None
    if config.get("transcode") or config.get("skip_connection"):
        refuse_transcoder(place.name)
    activation = config.get("activation", "topk")
    if activation != "topk":
        refuse(place.name, f"an SAE of sparsify with the activation {activation!r}, which no architecture here has")
    if config.get("signed"):
        refuse(place.name, "an SAE of sparsify with latents of both signs (signed), which is not read")
    path = needed(place, WEIGHTS_FILE, CONFIG_FILE)
    tensors = read_safetensors(path)
    if "W_skip" in tensors:
        refuse_transcoder(place.name)
    shapes = {"encoder.weight": 2, "encoder.bias": 1, "W_dec": 2, "b_dec": 1}
    W_enc_FD, b_enc_F, W_dec_FD, b_dec_D = required(path, tensors, shapes, "an SAE of sparsify")
    d_in = whole(config, "d_in", config_path)
    d_sae = config.get("num_latents") or d_in * whole(config, "expansion_factor", config_path)
    if tuple(W_dec_FD.shape) != (d_sae, d_in):
        raise UserError(
            f"{path}: W_dec has shape {list(W_dec_FD.shape)}, but {CONFIG_FILE} calls for {[d_sae, d_in]}; {DOWNLOAD_AGAIN}"
        )
    return built(
        path,
        "topk",
        {"W_enc": W_enc_FD.T, "b_enc": b_enc_F, "W_dec": W_dec_FD, "b_dec": b_dec_D},
        centred=True,
        k=whole(config, "k", config_path),
        rescale_acts_by_decoder_norm=False,
        metadata=_described(place),
    )


def _described(place: Place) -> dict[str, Any]:
    """Return what the folder's name says of the hook, and the run's configuration of model and data."""
    run_path = place.above(RUN_FILE)
    run: Mapping[str, Any] = {} if run_path is None else read_json_object(run_path, fix=DOWNLOAD_AGAIN)
    name = Path(place.origin).name
    module = name if _MODULE.fullmatch(name) else None
    block = re.fullmatch(r"(?:layers|h)\.(\d+)", name)
    context = run.get("ctx_len")
    return {
        "model_name": text(run.get("model")),
        "model_class_name": "AutoModelForCausalLM" if module else None,
        "hook_name": None if block is None else f"blocks.{block[1]}.hook_resid_post",
        "hf_hook_name": module,
        "dataset_path": text(run.get("dataset")),
        "context_size": context if type(context) is int and context > 0 else None,
    }
