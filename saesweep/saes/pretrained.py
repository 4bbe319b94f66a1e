"""Training that starts from the weights of another SAE: published ones, or SAELens' checkpoints of unfinished training."""

# Shape suffix legend:  D = d_in, F = d_sae

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from saesweep.errors import UserError
from saesweep.files import read_json_object
from saesweep.saes.architecture import Architecture, Params, architecture_for
from saesweep.saes.folder import CFG_FILE, SCALER_FILE, THRESHOLD, WEIGHTS_FILE, WHITENING_FILE
from saesweep.saes.folding import fold_layer_scales, fold_scale, fold_whitening, shift_encoder
from saesweep.saes.normalize import RUNTIME_MODES, Normalizer, Whitening
from saesweep.saes.open_sae import open_sae
from saesweep.specs import BaseRun

_FIX = "restore it, or save the SAE again"


@dataclass(frozen=True)
class Pretrained:
    """Weights that work on raw activations, and what the SAE does besides multiplying."""

    source: str
    tensors: dict[str, Tensor]
    mode: str
    """Per-token normalisation (`layer_norm`, `constant_norm_rescale`), else `none`."""
    centred: bool
    """Whether the encoder sees the input minus `b_dec`."""
    n_layers: int = 1
    """Hooks that a crosscoder reads together."""


def read_pretrained(source: str) -> Pretrained:
    """Read what `open_sae` reads, or a folder in training form (a checkpoint of SAELens).

    Raises:
        UserError: There is no SAE, or it is damaged.
    """
    folder = Path(source).expanduser()
    if (folder / CFG_FILE).is_file() and (folder / WEIGHTS_FILE).is_file():
        cfg = read_json_object(folder / CFG_FILE, fix=_FIX)
        if "decoder_init_norm" in cfg or (folder / SCALER_FILE).is_file():
            return _read_training_form(folder, cfg)
    sae = open_sae(source)
    return Pretrained(
        source,
        sae.tensors,
        str(sae.cfg.get("normalize_activations", "none")),
        bool(sae.cfg.get("apply_b_dec_to_input", True)),
        sae.n_layers,
    )


def pretrained_params(
    found: Pretrained, architecture: Architecture[Any], normalizer: Normalizer, like: Params
) -> Params:
    """Return trainable parameters that reproduce the SAE on activations scaled by `normalizer`.

    Latents and reconstruction (after un-scaling) are those of the SAE read, except that an architecture with another
    activation function selects other latents. An exported threshold is used by jumprelu and dropped by all others.

    Args:
        found: From `read_pretrained`.
        architecture: What is to be trained.
        normalizer: The run's.
        like: Parameters as `architecture.init` returns them: names, shapes, types and layout.

    Raises:
        UserError: Tensors are missing or have other shapes, or the per-token normalisation differs.
    """
    _check(found, architecture, like)
    tensors = {name: found.tensors[name].double() for name in like}
    if found.centred != architecture.spec.apply_b_dec_to_input:
        tensors = shift_encoder(tensors, tensors["b_dec"] if not found.centred else -tensors["b_dec"])
    tensors = _unfold(tensors, normalizer, centred=architecture.spec.apply_b_dec_to_input)
    params: Params = {}
    for name, param in like.items():
        params[name] = param.clone(memory_format=torch.preserve_format)
        params[name].copy_(tensors[name])
    return params


def check_pretrained(runs: Iterable[BaseRun]) -> None:
    """Check before any training that the weights which runs start from can be read and fit.

    Args:
        runs: Their widths are known.

    Raises:
        UserError: They cannot, or do not.
    """
    checked = set()
    for run in runs:
        key = (
            run.from_pretrained_path,
            run.sae.architecture,
            run.sae.d_in,
            run.sae.d_sae,
            run.sae.normalize_activations,
        )
        if run.from_pretrained_path is None or key in checked:
            continue
        checked.add(key)
        architecture = architecture_for(run.sae)
        _check(read_pretrained(run.from_pretrained_path), architecture, architecture.init(torch.Generator()))


def _check(found: Pretrained, architecture: Architecture[Any], like: Params) -> None:
    place = f"base.from_pretrained_path: {found.source}"
    own_mode = architecture.spec.normalize_activations
    if "W_enc" not in like and found.centred != architecture.spec.apply_b_dec_to_input:
        raise UserError(
            f"{place} has apply_b_dec_to_input {found.centred}; {architecture.spec.architecture} has no encoder bias to make up "
            "for another: set base.sae.apply_b_dec_to_input to the same"
        )
    if found.mode != (own_mode if own_mode in RUNTIME_MODES else "none"):
        raise UserError(
            f"{place} works with normalize_activations {found.mode}, this run has {own_mode}; a per-token normalisation "
            "must be the same"
        )
    if found.n_layers != architecture.n_layers:
        raise UserError(
            f"{place} reads activations of {found.n_layers} hooks together, this run of {architecture.n_layers}; check hook_name"
        )
    for name, param in like.items():
        if name not in found.tensors:
            raise UserError(f"{place} has no {name}, which {architecture.spec.architecture} needs")
        if found.tensors[name].shape != param.shape:
            raise UserError(
                f"{place}: {name} has shape {list(found.tensors[name].shape)}, this run needs {list(param.shape)}; "
                "check d_sae and the hook"
            )


def _unfold(tensors: dict[str, Tensor], normalizer: Normalizer, *, centred: bool) -> dict[str, Tensor]:
    """Undo what export would fold into the weights."""
    read, target = normalizer, normalizer.of_target
    if read.scale is not None and target.scale is not None:
        return fold_scale(tensors, 1 / read.scale, 1 / target.scale)
    if read.layer_scales is not None:
        return fold_layer_scales(tensors, tuple(1 / scale for scale in read.layer_scales))
    if read.whitening is not None and target.whitening is not None:
        mean_D, inverse_DD = (t.cpu().double() for t in (read.whitening.mean_D, read.whitening.inverse_DD))
        target_mean_D, matrix_DD = (t.cpu().double() for t in (target.whitening.mean_D, target.whitening.matrix_DD))
        if not centred:
            tensors = shift_encoder(tensors, mean_D)
        bias_D = tensors["b_dec"] - target_mean_D
        if "W_skip" in tensors:
            bias_D = bias_D + tensors["W_skip"] @ mean_D
            tensors = tensors | {"W_skip": (inverse_DD @ tensors["W_skip"].t() @ matrix_DD).t()}
        return tensors | {
            "W_enc": inverse_DD @ tensors["W_enc"],
            "W_dec": tensors["W_dec"] @ matrix_DD,
            "b_dec": bias_D @ matrix_DD,
        }
    return tensors


def _read_training_form(folder: Path, cfg: dict[str, Any]) -> Pretrained:
    try:
        tensors = {name: t.double() for name, t in load_file(folder / WEIGHTS_FILE).items() if name != THRESHOLD}
        whitening = load_file(folder / WHITENING_FILE) if (folder / WHITENING_FILE).is_file() else {}
    except SafetensorError as error:
        raise UserError(f"{folder}: not readable safetensors ({error})") from None
    if bad := [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]:
        raise UserError(f"{folder}: NaN or infinite values in {', '.join(bad)}")
    centred = bool(cfg.get("apply_b_dec_to_input", True))
    scaler = read_json_object(folder / SCALER_FILE, fix=_FIX) if (folder / SCALER_FILE).is_file() else {}
    if isinstance(scale := scaler.get("scaling_factor"), (int, float)):
        tensors = fold_scale(tensors, float(scale))
    if {"mean", "matrix", "inverse_matrix"} <= set(whitening):
        map_ = Whitening(
            mean_D=whitening["mean"].double(),
            matrix_DD=whitening["matrix"].double(),
            inverse_DD=whitening["inverse_matrix"].double(),
        )
        tensors = fold_whitening(tensors, map_, centred=centred)
    mode = str(cfg.get("normalize_activations", "none"))
    return Pretrained(str(folder), tensors, mode if mode in RUNTIME_MODES else "none", centred)
