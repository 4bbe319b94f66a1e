"""Crosscoders (Lindsey et al. 2024, transformer-circuits.pub/2024/crosscoders): latents shared by several hooks of one model.

`x` is the activations of all hooks side by side, [B, L*D], each hook scaled by itself, so that rows of `W_enc` and columns of
`W_dec` belong to a hook each: `h = sum_l x_l W_enc_l + b_enc`, `x_l^ = f W_dec_l + b_dec_l`, `mse_loss = E sum_l |x_l^ - x_l|^2`.
What differs from an SAE of that width is how much a latent's activation weighs: `sum_l |d_l|`, the sum of its decoders' norms, in
penalties as there, and in selecting latents as in arXiv 2504.02922.
"""

# Shape suffix legend:  B = tokens in a batch, N = tokens (any leading dimensions), L = hooks, D = d_in, all hooks together, F = d_sae

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from saesweep.saes.architecture import Architecture, Params, register_architecture
from saesweep.saes.batchtopk import BatchTopK
from saesweep.saes.forms import Cfg, ExportedForm, Tensors, form_of, positive_int_problem, register_form
from saesweep.saes.jumprelu import JumpReLUArchitecture
from saesweep.saes.normalize import Normalizer
from saesweep.saes.standard import Standard
from saesweep.saes.topk import TopK
from saesweep.specs.architectures import (
    CROSSCODERS,
    BatchTopKSpec,
    CrosscoderSpec,
    JumpReLUSpec,
    SAESpec,
    StandardSpec,
    TopKSpec,
)


class Crosscoder(Architecture[Any]):
    """What all crosscoders have in common; a subclass is this and an SAE's architecture."""

    def __init__(self, spec: CrosscoderSpec) -> None:
        super().__init__(spec)
        if spec.n_layers is None:
            raise ValueError("the spec has no n_layers; call resolve_widths with the number of hooks first")
        self.n_layers = spec.n_layers

    def decoder_norms(self, W_dec_FD: Tensor) -> Tensor:
        """Return the sum over hooks of each latent's decoder norms, [F]."""
        norm_FL: Tensor = torch.linalg.vector_norm(W_dec_FD.reshape(len(W_dec_FD), self.n_layers, -1), dim=-1)
        return norm_FL.sum(dim=-1)

    def fold(self, tensors: Params, normalizer: Normalizer, threshold: float | None) -> tuple[Params, dict[str, Any]]:
        """Fold as the SAE does. Of a topk, what decoders weigh in the selection is in the encoder then."""
        tensors, fields = super().fold(tensors, normalizer, threshold)
        own = {name: value for name, value in fields.items() if name != "rescale_acts_by_decoder_norm"}
        scales = normalizer.layer_scales
        return tensors, {**own, "n_layers": self.n_layers, "layer_scales": None if scales is None else list(scales)}


_OF_SAE: dict[type[SAESpec], type[Architecture[Any]]] = {
    StandardSpec: Standard,
    JumpReLUSpec: JumpReLUArchitecture,
    TopKSpec: TopK,
    BatchTopKSpec: BatchTopK,
}


def _define(spec: type[SAESpec], sae: type[Architecture[Any]]) -> type[Architecture[Any]]:
    cls = type(spec.__name__.removesuffix("Spec"), (Crosscoder, sae), {"__module__": __name__, "__doc__": spec.__doc__})
    return register_architecture(str(spec.model_fields["architecture"].default))(cls)


CROSSCODER_TRAINED_AS: dict[type[Architecture[Any]], type[Architecture[Any]]] = {
    _define(spec, _OF_SAE[of]): _OF_SAE[of] for of, spec in CROSSCODERS.items()
}
"""Crosscoder -> the SAE that it has the latents and losses of."""


class CrosscoderForm(ExportedForm):
    """The latents of an SAE's form, over the activations of `n_layers` hooks side by side.

    Its folder holds matrices by hook: `W_enc` [L, D/L, F], `W_dec` [F, L, D/L], `b_dec` [L, D/L]. `layer_scales` of `cfg.json` are
    the factors that are folded into them, with which decoder norms can be compared between hooks.

    Args:
        of: The SAE's form.
    """

    def __init__(self, of: ExportedForm) -> None:
        self._of = of

    def shapes(self, cfg: Cfg) -> dict[str, tuple[int, ...]]:
        """Return the tensors: name -> shape, hooks side by side."""
        return self._of.shapes(cfg)

    def stored_shapes(self, cfg: Cfg) -> dict[str, tuple[int, ...]]:
        """Return the tensors as a folder holds them: name -> shape."""
        n_layers, d_sae = cfg["n_layers"], cfg["d_sae"]
        width = cfg["d_in"] // n_layers
        by_hook: dict[str, tuple[int, ...]] = {
            "W_enc": (n_layers, width, d_sae),
            "W_dec": (d_sae, n_layers, width),
            "b_dec": (n_layers, width),
        }
        return self.shapes(cfg) | by_hook

    def n_layers(self, cfg: Cfg) -> int:
        """Return the number of hooks."""
        return int(cfg["n_layers"])

    def problems(self, cfg: Cfg) -> list[str]:
        """Return what is wrong with `n_layers`, `layer_scales` and the SAE's own fields."""
        found = [*positive_int_problem(cfg, "n_layers", max_field="d_in"), *self._of.problems(cfg)]
        if not found and type(cfg.get("d_in")) is int and cfg["d_in"] % cfg["n_layers"]:
            found.append(f"n_layers must divide d_in, the width of all hooks together, got {cfg['n_layers']}")
        scales = cfg.get("layer_scales")
        if not found and scales is not None and not _are_factors(scales, cfg["n_layers"]):
            found.append(f"layer_scales must be null or {cfg['n_layers']} positive numbers, got {scales!r}")
        for field, default in (("apply_b_dec_to_input", True), ("rescale_acts_by_decoder_norm", False)):
            if cfg.get(field, default):
                found.append(f"{field} must be false in a crosscoder")
        if cfg.get("normalize_activations", "none") != "none":
            found.append("normalize_activations must be none in a crosscoder")
        return found

    def encode(self, cfg: Cfg, tensors: Tensors, x_ND: Tensor) -> Tensor:
        """Return the latents [N, F]."""
        return self._of.encode(cfg, tensors, x_ND)


def _are_factors(value: object, count: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) == count
        and all(isinstance(scale, (int, float)) and 0 < scale < float("inf") for scale in value)
    )


for _of in ("standard", "jumprelu", "topk"):
    register_form(f"{_of}_crosscoder", CrosscoderForm(form_of(_of)))
