"""Normalisation of activations: per token, which travels with the SAE, and of a whole run, which is folded into the weights at export.

Per-token modes are `layer_norm` and `constant_norm_rescale`. The others are properties of the run's activations: estimated once per hook
and run, and shared by the whole cohort.

Shape suffixes: B = tokens in a batch, N = tokens (any leading dimensions), D = d_in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from saesweep.errors import UserError
from saesweep.specs.architectures.base import NormalizeActivations

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


_WHITENING_EPS = 1e-3


class AllZeroError(UserError):
    """Every activation of a hook is zero, so that no factor gives it a norm."""


@dataclass(frozen=True, kw_only=True)
class Whitening:
    """An affine map of activations: `z = (x - mean) @ matrix`, undone by `x = z @ inverse + mean`. All float64."""

    mean_D: Tensor
    matrix_DD: Tensor
    inverse_DD: Tensor


@dataclass(frozen=True, kw_only=True)
class Normalizer:
    """What maps raw activations to those an SAE trains on, for the modes that are properties of the run.

    Attributes:
        mode: The `normalize_activations` value.
        scale: The factor of `expected_average_only_in`; None for other modes.
        layer_scales: The factors of `expected_average_only_in` for hooks that are read together, one for each of their equal
            shares of the width; `scale` is None then.
        whitening: The map of `covariance_whitening`; None for other modes.
        target: The one of the activations that a transcoder reconstructs; None for an SAE, which reconstructs what it reads.
    """

    mode: NormalizeActivations
    scale: float | None = None
    layer_scales: tuple[float, ...] | None = None
    whitening: Whitening | None = None
    target: Normalizer | None = None

    @classmethod
    def fit(
        cls,
        mode: NormalizeActivations,
        batches: Iterable[Tensor],
        d_in: int,
        hook: str = "the hook",
        *,
        n_layers: int = 1,
    ) -> Normalizer:
        """Estimate the statistics in one pass over batches of raw activations; no batch is kept.

        `expected_average_only_in`: `scale = sqrt(d_in) / E|x|`. `covariance_whitening` (arXiv 2511.13981):
        `matrix = E (lambda + 1e-3)^(-1/2)` of the unbiased covariance `E diag(lambda) E^T`. Both as in SAELens 6.54,
        with float64 sums. Modes without run-level statistics do not touch `batches`.

        Args:
            mode: The `normalize_activations` value.
            batches: Activations [B, d_in] of any floating type and device.
            d_in: Width of the activations.
            hook: Where they are from, for messages.
            n_layers: Hooks that are read together, whose activations stand side by side: each gets a factor of its own.

        Raises:
            UserError: There are no activations, or they are all zero or not finite.
            ValueError: A whitening of hooks that are read together.
        """
        if mode == "expected_average_only_in":
            scales = _fit_scales(batches, d_in, hook, n_layers)
            return cls(mode=mode, scale=scales[0]) if n_layers == 1 else cls(mode=mode, layer_scales=scales)
        if mode == "covariance_whitening" and n_layers > 1:
            raise ValueError("hooks that are read together have no common whitening")
        if mode == "covariance_whitening":
            return cls(mode=mode, whitening=_fit_whitening(batches, d_in))
        return cls(mode=mode)

    @property
    def of_target(self) -> Normalizer:
        """The one of the activations that are reconstructed."""
        return self if self.target is None else self.target

    def apply(self, x_BD: Tensor) -> Tensor:
        """Return the activations an SAE trains on: [B, D], in at least float32 where a map is applied."""
        if self.scale is not None:
            return _at_least_float32(x_BD) * self.scale
        if self.layer_scales is not None:
            x_BD = _at_least_float32(x_BD)
            return x_BD * per_dimension(self.layer_scales, x_BD)
        if self.whitening is not None:
            x_BD = _at_least_float32(x_BD)
            return (x_BD - self.whitening.mean_D.to(x_BD)) @ self.whitening.matrix_DD.to(x_BD)
        return x_BD

    def to(self, device: torch.device | str) -> Normalizer:
        """Return a copy whose tensors live on `device`, so that `apply` copies nothing per batch."""
        if self.whitening is None:
            return self
        w = self.whitening
        moved = Whitening(
            mean_D=w.mean_D.to(device), matrix_DD=w.matrix_DD.to(device), inverse_DD=w.inverse_DD.to(device)
        )
        return replace(self, whitening=moved)

    def state_dict(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return (values for a JSON file, tensors for a safetensors file); `from_state_dict` restores exactly."""
        values: dict[str, Any] = {"mode": self.mode, "scale": self.scale}
        if self.layer_scales is not None:
            values["layer_scales"] = list(self.layer_scales)
        if self.whitening is None:
            return values, {}
        w = self.whitening
        return values, {
            "mean": w.mean_D.cpu().contiguous(),
            "matrix": w.matrix_DD.cpu().contiguous(),
            "inverse_matrix": w.inverse_DD.cpu().contiguous(),
        }

    @classmethod
    def from_state_dict(cls, values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Normalizer:
        """Restore what `state_dict` returned.

        Raises:
            KeyError: A value or tensor of that mode is missing.
        """
        whitening = None
        if values["mode"] == "covariance_whitening":
            whitening = Whitening(
                mean_D=tensors["mean"], matrix_DD=tensors["matrix"], inverse_DD=tensors["inverse_matrix"]
            )
        layer_scales = values.get("layer_scales")
        return cls(
            mode=values["mode"],
            scale=values["scale"],
            layer_scales=None if layer_scales is None else tuple(layer_scales),
            whitening=whitening,
        )


def per_dimension(layer_scales: tuple[float, ...], like: Tensor) -> Tensor:
    """Return [D] with the factor of the layer that each dimension belongs to; D is the last axis of `like`."""
    factors_L = torch.tensor(layer_scales, dtype=like.dtype, device=like.device)
    return factors_L.repeat_interleave(like.shape[-1] // len(layer_scales))


def _at_least_float32(x_BD: Tensor) -> Tensor:
    # A scaled bf16 activation would be rounded a second time; training casts to fp32 in any case.
    return x_BD.to(torch.promote_types(x_BD.dtype, torch.float32))


def _fit_scales(batches: Iterable[Tensor], d_in: int, hook: str, n_layers: int) -> tuple[float, ...]:
    total_norms, tokens = [0.0] * n_layers, 0
    for x_BD in batches:
        _check_width(x_BD, d_in)
        for layer, part_BD in enumerate(x_BD.chunk(n_layers, dim=-1)):
            total_norms[layer] += float(part_BD.double().norm(dim=-1).sum())
        tokens += x_BD.shape[0]
    means = [total / tokens if tokens else 0.0 for total in total_norms]
    for mean_norm in means:
        if not 0 < mean_norm < float("inf"):
            kind = AllZeroError if tokens and mean_norm == 0 else UserError
            raise kind(
                f"sae.normalize_activations: expected_average_only_in divides by the mean norm of the activations at {hook}, which is "
                f"{mean_norm:g} over {tokens} tokens; it must be positive and finite. Choose another hook, or check the dataset and the model's dtype"
            )
    return tuple(float((d_in // n_layers) ** 0.5 / mean_norm) for mean_norm in means)


def _fit_whitening(batches: Iterable[Tensor], d_in: int) -> Whitening:
    tokens = 0
    sum_D = torch.zeros(d_in, dtype=torch.float64)
    outer_DD = torch.zeros(d_in, d_in, dtype=torch.float64)
    for x_BD in batches:
        _check_width(x_BD, d_in)
        x_BD = x_BD.double()
        sum_D, outer_DD = sum_D.to(x_BD.device), outer_DD.to(x_BD.device)
        tokens += x_BD.shape[0]
        sum_D += x_BD.sum(dim=0)
        outer_DD += x_BD.T @ x_BD
    if tokens < 2 or not bool(torch.isfinite(outer_DD).all()):
        raise UserError(
            f"sae.normalize_activations: covariance_whitening needs at least 2 finite activations, but saw {tokens} tokens"
            f"{' with infinite or NaN values' if tokens >= 2 else ''}. Check the hook, the dataset and the model's dtype"
        )
    mean_D = sum_D / tokens
    covariance_DD = (outer_DD - tokens * torch.outer(mean_D, mean_D)) / (tokens - 1)
    lambda_D, vectors_DD = torch.linalg.eigh(covariance_DD)
    # A numerically singular covariance has tiny negative eigenvalues.
    lambda_D = lambda_D.clamp_min(0) + _WHITENING_EPS
    return Whitening(
        mean_D=mean_D,
        matrix_DD=(vectors_DD * lambda_D.rsqrt()).contiguous(),
        inverse_DD=(lambda_D.sqrt().unsqueeze(1) * vectors_DD.T).contiguous(),
    )


def _check_width(x_BD: Tensor, d_in: int) -> None:
    if x_BD.ndim != 2 or x_BD.shape[1] != d_in:
        raise ValueError(f"activations must be [tokens, {d_in}], got {list(x_BD.shape)}")
