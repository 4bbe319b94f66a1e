"""Per-token normalisation that travels with the SAE: `layer_norm` and `constant_norm_rescale`.

The other modes are identities here: they are properties of the run's activations and belong to `normalize.Normalizer`.
"""

# Shape suffix legend:  N = tokens (any leading dimensions), D = d_in

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

RUNTIME_MODES = ("layer_norm", "constant_norm_rescale")
"""Modes that need the input's own statistics to undo, so that they cannot be folded into weights."""

Undo = Callable[[Tensor], Tensor]
"""Maps a reconstruction [..., D] in the normalised space back to the space of the input."""

_LAYER_NORM_EPS = 1e-5


def normalise_tokens(mode: str, x_ND: Tensor) -> tuple[Tensor, Undo]:
    """Return the per-token normalised input and the function that undoes it on a reconstruction.

    The statistics live in the returned closure, not in an object: two calls cannot disturb each other.

    Args:
        mode: A `normalize_activations` value; every mode but the two runtime ones is an identity.
        x_ND: Activations, [..., d_in].

    Returns:
        The normalised activations, and the inverse map for a reconstruction of the same tokens.
        Both are those of SAELens 6.54: `layer_norm` divides by (unbiased std + 1e-5) and multiplies back by the std alone.
    """
    if mode == "layer_norm":
        mean_N1 = x_ND.mean(dim=-1, keepdim=True)
        centred_ND = x_ND - mean_N1
        std_N1 = centred_ND.std(dim=-1, keepdim=True)
        return centred_ND / (std_N1 + _LAYER_NORM_EPS), lambda recon_ND: recon_ND * std_N1 + mean_N1
    if mode == "constant_norm_rescale":
        # The floor keeps an all-zero token finite; every real activation is far above it.
        norm_N1 = x_ND.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(x_ND.dtype).eps)
        factor_N1 = x_ND.shape[-1] ** 0.5 / norm_N1
        return x_ND * factor_N1, lambda recon_ND: recon_ND / factor_N1
    return x_ND, lambda recon_ND: recon_ND
