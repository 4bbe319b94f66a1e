"""Transcoders: the latents and losses of an SAE, between two hooks (arXiv 2406.11944), with a skip connection where asked for (2501.18823).

`x` are the activations of `hook_name`, `y` those of `hook_name_out`, both scaled by the run's normalisation of their own hook:
`y^ = decode(encode(x)) + x W_skip^T`. Whatever an SAE's losses compare with `x`, a transcoder's compare with `y`.
"""

# Shape suffix legend:  B = tokens in a batch, N = tokens (any leading dimensions), D = d_in, O = d_out, F = d_sae

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from saesweep.saes.architecture import Architecture, Knobs, Params, register_architecture
from saesweep.saes.batchtopk import BatchTopK
from saesweep.saes.forms import Cfg, ExportedForm, Tensors, form_of, positive_int_problem, register_form
from saesweep.saes.gated import Gated
from saesweep.saes.jumprelu import JumpReLUArchitecture
from saesweep.saes.matryoshka import MatryoshkaBatchTopK
from saesweep.saes.normalize import Normalizer
from saesweep.saes.standard import Standard
from saesweep.saes.topk import TopK
from saesweep.specs.architectures import (
    TRANSCODERS,
    BatchTopKSpec,
    GatedSpec,
    JumpReLUSpec,
    MatryoshkaBatchTopKSpec,
    SAESpec,
    StandardSpec,
    TopKSpec,
    TranscoderSpec,
)


class Transcoder(Architecture[Any]):
    """What all transcoders have in common; a subclass is this and an SAE's architecture."""

    def __init__(self, spec: TranscoderSpec) -> None:
        super().__init__(spec)
        if spec.d_out is None:
            raise ValueError("the spec has no d_out; call resolve_widths with both widths first")
        self.d_out = spec.d_out

    def init_dictionary(self, generator: torch.Generator, *, dtype: torch.dtype, device: torch.device | str) -> Params:
        """Return `W_enc`, `W_dec`, `b_dec` and, with a skip connection, `W_skip` [d_out, d_in] = 0.

        Encoder and decoder are drawn as an SAE's decoder is, each by itself: between two spaces neither is the other's
        transpose.
        """
        encoder = super().init_dictionary(generator, dtype=dtype, device=device)["W_enc"]
        bound = (6 / self.d_out) ** 0.5
        W_dec_FO = torch.empty(self.d_sae, self.d_out).uniform_(-bound, bound, generator=generator)
        if self.spec.decoder_init_norm is not None:
            W_dec_FO *= self.spec.decoder_init_norm / W_dec_FO.norm(dim=-1, keepdim=True)
        params = {
            "W_enc": encoder,
            "W_dec": W_dec_FO.to(device=device, dtype=dtype),
            "b_dec": torch.zeros(self.d_out, dtype=dtype, device=device),
        }
        if self.spec.has_skip:
            params["W_skip"] = torch.zeros(self.d_out, self.d_in, dtype=dtype, device=device)
        return params

    def skip(self, params: Params, x_BD: Tensor) -> Tensor | None:
        """Return `x W_skip^T` [B, O]; None without a skip connection."""
        return x_BD @ params["W_skip"].t() if self.spec.has_skip else None

    def fold(self, tensors: Params, normalizer: Normalizer, threshold: float | None) -> tuple[Params, dict[str, Any]]:
        """Fold as the SAE does; what SAELens has no transcoder for becomes the jumprelu that it is."""
        tensors, fields = super().fold(tensors, normalizer, threshold)
        own = {name: value for name, value in fields.items() if name not in ("k", "rescale_acts_by_decoder_norm")}
        return tensors, {**own, "d_out": self.d_out}


class _ThresholdedTopK(Transcoder):
    """The k largest latents of each token in training; exported with one calibrated threshold, as a batchtopk is."""

    needs_threshold = True

    @torch.no_grad()
    def pre_acts_for_threshold(self, params: Params, x_BD: Tensor) -> Tensor:
        """Return `relu(h')` [B, F], of which `calibrate_threshold` takes a quantile."""
        hidden_BF = self.encode_parts(params, self.encoder_input(params, x_BD), Knobs(k=1))[1]
        return hidden_BF.relu()


class _JumpReLUOfGated(Transcoder):
    """A gated transcoder; its two paths share the encoder, so that one threshold on the magnitude says what the gate does."""

    def fold(self, tensors: Params, normalizer: Normalizer, threshold: float | None) -> tuple[Params, dict[str, Any]]:
        """Fold the gate into a threshold: `pi > 0` exactly where `mu > b_mag - b_gate exp(r_mag)`."""
        tensors, fields = super().fold(tensors, normalizer, threshold)
        scale_F = tensors["r_mag"].exp()
        kept = {name: tensor for name, tensor in tensors.items() if name not in ("b_gate", "b_mag", "r_mag")}
        jumprelu = {
            "W_enc": tensors["W_enc"] * scale_F,
            "b_enc": tensors["b_mag"],
            "threshold": (tensors["b_mag"] - tensors["b_gate"] * scale_F).clamp(min=0),
        }
        return {**kept, **jumprelu}, fields


_OF_SAE: dict[type[SAESpec], tuple[type[Architecture[Any]], type[Transcoder]]] = {
    StandardSpec: (Standard, Transcoder),
    GatedSpec: (Gated, _JumpReLUOfGated),
    JumpReLUSpec: (JumpReLUArchitecture, Transcoder),
    TopKSpec: (TopK, _ThresholdedTopK),
    BatchTopKSpec: (BatchTopK, Transcoder),
    MatryoshkaBatchTopKSpec: (MatryoshkaBatchTopK, Transcoder),
}


def _define(spec: type[SAESpec], sae: type[Architecture[Any]], mixin: type[Transcoder]) -> type[Architecture[Any]]:
    cls = type(spec.__name__.removesuffix("Spec"), (mixin, sae), {"__module__": __name__, "__doc__": spec.__doc__})
    return register_architecture(str(spec.model_fields["architecture"].default))(cls)


TRAINED_AS: dict[type[Architecture[Any]], type[Architecture[Any]]] = {
    _define(spec, *_OF_SAE[of]): _OF_SAE[of][0] for of, specs in TRANSCODERS.items() for spec in specs
}
"""Transcoder -> the SAE that it has the latents and losses of."""


class TranscoderForm(ExportedForm):
    """The latents of an SAE's form between two widths; a skip connection is added by `ExportedSAE`.

    Args:
        of: The SAE's form.
        skip: Whether it has a skip connection.
    """

    is_transcoder = True

    def __init__(self, of: ExportedForm, *, skip: bool) -> None:
        self._of, self._skip = of, skip

    def shapes(self, cfg: Cfg) -> dict[str, tuple[int, ...]]:
        """Return the tensors: name -> shape."""
        d_in, d_out, d_sae = cfg["d_in"], cfg["d_out"], cfg["d_sae"]
        skip: dict[str, tuple[int, ...]] = {"W_skip": (d_out, d_in)} if self._skip else {}
        return self._of.shapes(cfg) | {"W_dec": (d_sae, d_out), "b_dec": (d_out,)} | skip

    def problems(self, cfg: Cfg) -> list[str]:
        """Return what is wrong with `d_out` and with the SAE's own fields."""
        return [*positive_int_problem(cfg, "d_out"), *self._of.problems(cfg)]

    def encode(self, cfg: Cfg, tensors: Tensors, x_ND: Tensor) -> Tensor:
        """Return the latents [N, F]."""
        return self._of.encode(cfg, tensors, x_ND)


for _name, _of in (("transcoder", "standard"), ("jumprelu_transcoder", "jumprelu")):
    register_form(_name, TranscoderForm(form_of(_of), skip=False))
    register_form(_name.replace("transcoder", "skip_transcoder"), TranscoderForm(form_of(_of), skip=True))
