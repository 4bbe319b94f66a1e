"""Folding: absorb normalisation and decoder norms into the weights, so that the published SAE needs no extra state."""

# Shape suffix legend:  D = d_in (of what a transcoder reconstructs: d_out), F = d_sae

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from saesweep.saes.exported import DTYPES
from saesweep.saes.normalize import RUNTIME_MODES, Whitening, per_dimension
from saesweep.specs.architectures import SAESpec
from saesweep.version import __version__

SAELENS_VERSION = "6.54.12"
"""The SAELens release whose folder format is written."""

_COMMON_FIELDS = frozenset(
    {"architecture", "d_in", "d_sae", "dtype", "device", "apply_b_dec_to_input", "reshape_activations"}
)


def fold_scale(tensors: dict[str, Tensor], scale: float, target_scale: float | None = None) -> dict[str, Tensor]:
    """Fold `x -> scale x` into the weights: the latents stay, the reconstruction is of the raw activations.

    Where encoder and decoder are one matrix, without `W_enc`, that matrix stays and latents are divided by the scale.

    Args:
        tensors: Weights of the scaled space.
        scale: Factor of the activations that are read.
        target_scale: Factor of those that a transcoder reconstructs; `scale` when left out.
    """
    target_scale = scale if target_scale is None else target_scale
    if "W_enc" not in tensors:
        return tensors | {"b_dec": tensors["b_dec"] / target_scale}
    folded = tensors | {
        "W_enc": tensors["W_enc"] * scale,
        "W_dec": tensors["W_dec"] / target_scale,
        "b_dec": tensors["b_dec"] / target_scale,
    }
    return folded if "W_skip" not in tensors else folded | {"W_skip": tensors["W_skip"] * (scale / target_scale)}


def fold_layer_scales(tensors: dict[str, Tensor], layer_scales: tuple[float, ...]) -> dict[str, Tensor]:
    """Fold a factor for each of the layers that a crosscoder reads; the latents stay, as in `fold_scale`."""
    scale_D = per_dimension(layer_scales, tensors["W_dec"])
    return tensors | {
        "W_enc": tensors["W_enc"] * scale_D[:, None],
        "W_dec": tensors["W_dec"] / scale_D,
        "b_dec": tensors["b_dec"] / scale_D,
    }


def fold_whitening(
    tensors: dict[str, Tensor], whitening: Whitening, *, centred: bool, target: Whitening | None = None
) -> dict[str, Tensor]:
    """Fold `z = (x - mean) M` into the weights: the latents stay, the reconstruction is of the raw activations.

    Args:
        tensors: Weights of the whitened space; encoder biases `b_enc`, or `b_gate`, `b_mag` and `r_mag`.
        whitening: The map; computed with in float64.
        centred: Whether the SAE subtracts `b_dec` from its input. Then the folded `b_dec` removes the mean too; otherwise the
            encoder biases must.
        target: The map of the activations that a transcoder reconstructs; `whitening` when left out.
    """
    device = tensors["W_dec"].device
    out = whitening if target is None else target
    mean_D, matrix_DD, inverse_DD = (t.to(device) for t in (whitening.mean_D, whitening.matrix_DD, out.inverse_DD))
    folded = tensors | {
        "W_enc": matrix_DD @ tensors["W_enc"].double(),
        "W_dec": tensors["W_dec"].double() @ inverse_DD,
        "b_dec": tensors["b_dec"].double() @ inverse_DD + out.mean_D.to(device),
    }
    if "W_skip" in tensors:  # [d_out, d_in]
        skip_DD = matrix_DD @ tensors["W_skip"].double().t() @ inverse_DD
        folded |= {"W_skip": skip_DD.t(), "b_dec": folded["b_dec"] - mean_D @ skip_DD}
    if not centred:
        folded = shift_encoder(folded, -mean_D)
    return folded


def shift_encoder(tensors: dict[str, Tensor], shift_D: Tensor) -> dict[str, Tensor]:
    """Return weights whose encoder does on `x` what it did on `x + shift`: only biases change."""
    shift_F = shift_D @ tensors["W_enc"]
    biases = ("b_enc", "b_gate")
    shifted: dict[str, Tensor] = {name: tensors[name] + shift_F for name in biases if name in tensors}
    if "b_mag" in tensors:  # the magnitude path sees W_enc * exp(r_mag)
        shifted["b_mag"] = tensors["b_mag"] + shift_F * tensors["r_mag"].double().exp()
    return tensors | shifted


def fold_decoder_norms(tensors: dict[str, Tensor], norm_F: Tensor | None = None) -> dict[str, Tensor]:
    """Move each decoder row's norm into the encoder: latents become `|d|` times as large, decoder rows unit vectors.

    Args:
        tensors: The weights.
        norm_F: What counts as the norm of each row; that of the vector when left out.
    """
    norm_F = (tensors["W_dec"].norm(dim=-1) if norm_F is None else norm_F).clamp_min(1e-8)
    return tensors | {
        "W_enc": tensors["W_enc"] * norm_F,
        "b_enc": tensors["b_enc"] * norm_F,
        "W_dec": tensors["W_dec"] / norm_F.unsqueeze(1),
    }


def exported_tensors(tensors: dict[str, Tensor], dtype: str) -> dict[str, Tensor]:
    """Return contiguous tensors in the exported type; `threshold` is float32 always, as SAELens stores it."""
    return {
        name: tensor.to(torch.float32 if name == "threshold" else DTYPES[dtype]).contiguous()
        for name, tensor in tensors.items()
    }


def exported_cfg(spec: SAESpec, fields: dict[str, Any]) -> dict[str, Any]:
    """Return the `cfg.json` of a folded SAE: SAELens' keys, with the training options under `metadata`.

    `{**cfg, **metadata.training_architecture_details, "architecture": metadata.training_architecture}` is the training
    configuration again. `normalize_activations` is among those details, because the folded SAE's own says `none`.

    Args:
        spec: The training configuration.
        fields: Fields beyond the common ones (`k` of a topk). What folding changed of them is among the details as it trained.
    """
    same = {name for name, value in fields.items() if getattr(spec, name, value) == value}
    details = spec.model_dump(mode="json", exclude={*_COMMON_FIELDS, "expansion_factor", *same})
    mode = spec.normalize_activations
    return {
        "device": spec.device,
        "normalize_activations": mode if mode in RUNTIME_MODES else "none",
        "reshape_activations": spec.reshape_activations,
        "dtype": spec.dtype,
        "d_sae": spec.d_sae,
        "apply_b_dec_to_input": spec.apply_b_dec_to_input,
        **fields,
        "metadata": {
            "sae_lens_version": SAELENS_VERSION,
            "sae_lens_training_version": SAELENS_VERSION,
            "saesweep_version": __version__,
            "training_architecture": spec.architecture,
            "training_architecture_details": details,
        },
        "d_in": spec.d_in,
        "architecture": spec.saved_as,
    }
