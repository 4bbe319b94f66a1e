"""SAEs of dictionary_learning: `ae.pt`, a state dict, and the trainer's `config.json` beside it.

A run that normalised its activations has scaled the biases back before it saved, so that every SAE works on raw activations.
"""

# Shape suffix legend:  D = d_in, F = d_sae

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from saesweep.errors import UserError
from saesweep.files import read_json_object
from saesweep.saes.exported import ExportedSAE
from saesweep.saes.formats.place import Place, needed
from saesweep.saes.formats.weights import DOWNLOAD_AGAIN, built, read_torch, required, text, whole, with_unit_decoder

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "ae.pt"
_WHAT = "an SAE of dictionary_learning"
_SITES = {
    "resid_post": "hook_resid_post",
    "resid_pre": "hook_resid_pre",
    "mlp_out": "hook_mlp_out",
    "attn_out": "hook_attn_out",
}
"""Beginning of `submodule_name`, as in `resid_post_layer_12` -> hook point."""


def read_dictionary_learning(place: Place) -> ExportedSAE | None:
    """Read a folder with an `ae.pt`; None where there is none. Nothing but plain tensors is unpickled.

    Raises:
        UserError: A file is missing or damaged, or of a class that is not known.
    """
    path = place.file(WEIGHTS_FILE)
    if path is None:
        return None
    config_path = needed(place, CONFIG_FILE, WEIGHTS_FILE)
    config = read_json_object(config_path, fix=DOWNLOAD_AGAIN)
    trainer = config.get("trainer")
    if not isinstance(trainer, dict):
        raise UserError(f"{config_path}: has no block trainer, so that it is no configuration of dictionary_learning")
    kind = trainer.get("dict_class")
    if not isinstance(kind, str) or kind not in _CLASSES:
        raise UserError(f"{config_path}: dict_class must be one of {', '.join(_CLASSES)}, got {kind!r}")
    make, trained_as = _CLASSES[kind]
    architecture, tensors, centred = make(path, read_torch(path))
    for key, axis in (("dict_size", 0), ("activation_dim", 1)):
        if key in trainer and trainer[key] != tensors["W_dec"].shape[axis]:
            raise UserError(
                f"{config_path}: {key} is {trainer[key]!r}, but {WEIGHTS_FILE} has {tensors['W_dec'].shape[axis]}; {DOWNLOAD_AGAIN}"
            )
    fields = {"k": whole(trainer, "k", config_path)} if architecture == "topk" else {}
    return built(
        path,
        architecture,
        tensors,
        centred=centred,
        metadata={**_described(config, trainer), **_training(trained_as, trainer)},
        **fields,
    )


def _training(architecture: str | None, trainer: Mapping[str, Any]) -> dict[str, Any]:
    """Return what says that an SAE was trained otherwise than it is read."""
    if architecture is None:
        return {}
    k = trainer.get("k")
    details = {"k": k} if type(k) is int else {}
    return {"training_architecture": architecture, "training_architecture_details": details}


def _described(config: Mapping[str, Any], trainer: Mapping[str, Any]) -> dict[str, Any]:
    buffer = config.get("buffer")
    buffer = buffer if isinstance(buffer, dict) else {}
    layer, context = trainer.get("layer"), buffer.get("ctx_len")
    module = trainer.get("submodule_name")
    named = re.fullmatch(r"(\w+?)_layer_(\d+)", module) if isinstance(module, str) else None
    hook = None
    if named is not None:
        point = _SITES.get(named[1])
        hook = None if point is None else f"blocks.{named[2]}.{point}"
    elif module is None and type(layer) is int and buffer.get("io", "out") == "out":
        hook = f"blocks.{layer}.hook_resid_post"  # the module that dictionary_learning's own scripts hook
    return {
        "model_name": text(trainer.get("lm_name")),
        "model_class_name": "TransformerBridge" if hook else None,
        "hook_name": hook,
        "context_size": context if type(context) is int and context > 0 else None,
    }


_Made = tuple[str, dict[str, Tensor], bool]


def _linear(path: Path, tensors: Mapping[str, Tensor], bias: str) -> dict[str, Tensor]:
    """Return the four tensors of two `nn.Linear` layers and a decoder bias of its own."""
    shapes = {"encoder.weight": 2, "encoder.bias": 1, "decoder.weight": 2, bias: 1}
    W_enc_FD, b_enc_F, W_dec_DF, b_dec_D = required(path, tensors, shapes, _WHAT)
    return {"W_enc": W_enc_FD.T, "b_enc": b_enc_F, "W_dec": W_dec_DF.T, "b_dec": b_dec_D}


def _direct(path: Path, tensors: Mapping[str, Tensor], **further: int) -> dict[str, Tensor]:
    """Return the tensors of a class that has SAELens' names and shapes."""
    shapes = {"W_enc": 2, "b_enc": 1, "W_dec": 2, "b_dec": 1, **further}
    return dict(zip(shapes, required(path, tensors, shapes, _WHAT), strict=True))


def _standard(path: Path, tensors: Mapping[str, Tensor]) -> _Made:
    # `load_dictionary` divides the decoder by its norms, and multiplies the latents by them.
    return "standard", with_unit_decoder(path, _linear(path, tensors, "bias")), True


def _standard_new(path: Path, tensors: Mapping[str, Tensor]) -> _Made:
    return "standard", _linear(path, tensors, "decoder.bias"), False


def _gated(path: Path, tensors: Mapping[str, Tensor]) -> _Made:
    shapes = {"encoder.weight": 2, "decoder.weight": 2, "decoder_bias": 1, "gate_bias": 1, "mag_bias": 1, "r_mag": 1}
    W_enc_FD, W_dec_DF, b_dec_D, b_gate_F, b_mag_F, r_mag_F = required(path, tensors, shapes, _WHAT)
    ours = {"W_enc": W_enc_FD.T, "W_dec": W_dec_DF.T, "b_dec": b_dec_D}
    return "gated", {**ours, "b_gate": b_gate_F, "b_mag": b_mag_F, "r_mag": r_mag_F}, True


def _jumprelu(path: Path, tensors: Mapping[str, Tensor]) -> _Made:
    return "jumprelu", _direct(path, tensors, threshold=1), False


def _topk(path: Path, tensors: Mapping[str, Tensor]) -> _Made:
    # The checkpoint also holds a threshold, but by default the original encodes by the k largest pre-activations.
    return "topk", _linear(path, tensors, "b_dec"), True


def _batchtopk(path: Path, tensors: Mapping[str, Tensor]) -> _Made:
    return "jumprelu", _with_threshold(path, tensors, _linear(path, tensors, "b_dec")), True


def _matryoshka(path: Path, tensors: Mapping[str, Tensor]) -> _Made:
    return "jumprelu", _with_threshold(path, tensors, _direct(path, tensors)), True


def _with_threshold(path: Path, tensors: Mapping[str, Tensor], ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights with one threshold for all latents; below 0 (never set in training) it lets all of them through."""
    (threshold,) = required(path, tensors, {"threshold": 0}, "a BatchTopK SAE of dictionary_learning")
    return {**ours, "threshold": torch.full_like(ours["b_enc"], threshold.item())}


_CLASSES: dict[str, tuple[Callable[[Path, Mapping[str, Tensor]], _Made], str | None]] = {
    "AutoEncoder": (_standard, None),
    "AutoEncoderNew": (_standard_new, None),
    "GatedAutoEncoder": (_gated, None),
    "JumpReluAutoEncoder": (_jumprelu, None),
    "AutoEncoderTopK": (_topk, None),
    "BatchTopKSAE": (_batchtopk, "batchtopk"),
    "MatryoshkaBatchTopKSAE": (_matryoshka, "matryoshka_batchtopk"),
}
"""`dict_class` -> how its state dict is read, and as what it was trained where that is something else."""
