"""The gated SAE (arXiv 2404.16014): one path decides which latents are active, the other how strongly."""

# Shape suffix legend:  B = tokens in a batch, N = tokens (any leading dimensions), D = d_in, F = d_sae

from __future__ import annotations

import torch
from torch import Tensor

from saesweep.saes.architecture import (
    Architecture,
    ForwardState,
    Knobs,
    Params,
    register_architecture,
    squared_error,
)
from saesweep.saes.forms import Cfg, ExportedForm, Tensors, register_form
from saesweep.specs.architectures import GatedSpec


@register_architecture("gated")
class Gated(Architecture[GatedSpec]):
    """`f = 1[pi > 0] * relu(x~ (W_enc * exp(r_mag)) + b_mag)` with `pi = x~ W_enc + b_gate`.

    Loss `+ l1_coefficient * E sum relu(pi) |d|` and `+ E |relu(pi) W_dec + b_dec - x|^2`. The step in f passes no gradient:
    the gate learns from these two terms alone. As in SAELens, their `pi` is that of the batch before a per-token
    normalisation (`layer_norm`, `constant_norm_rescale`), while f's is that of the normalised one.
    """

    @property
    def reads_dead(self) -> bool:
        """No loss term does."""
        return False

    def init(
        self, generator: torch.Generator, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> Params:
        """Return `W_enc`, `W_dec`, `b_dec`, and `b_gate`, `b_mag`, `r_mag` = 0."""
        params = self.init_dictionary(generator, dtype=dtype, device=device)
        zeros = {name: torch.zeros(self.d_sae, dtype=dtype, device=device) for name in ("b_gate", "b_mag", "r_mag")}
        return params | zeros

    def encode_parts(self, params: Params, x_BD: Tensor, knobs: Knobs) -> tuple[Tensor, Tensor]:
        """Return (f, pre-activation of the magnitude path)."""
        gate_BF = x_BD @ params["W_enc"] + params["b_gate"]
        magnitude_BF = x_BD @ (params["W_enc"] * params["r_mag"].exp()) + params["b_mag"]
        return (gate_BF > 0).to(magnitude_BF) * magnitude_BF.relu(), magnitude_BF

    def penalties(self, state: ForwardState) -> dict[str, Tensor]:
        """Return `l1_loss` and `auxiliary_reconstruction_loss`."""
        params = state.params
        gate_BF = (self.centre(params, state.x_BD) @ params["W_enc"] + params["b_gate"]).relu()
        l1_per_token_B = (gate_BF * params["W_dec"].norm(dim=1)).sum(dim=-1)
        decoder, target_BD = {name: params[name] for name in ("W_dec", "b_dec")}, state.target_BD
        if self.spec.detach_aux_decoder:  # a skip connection, which the target is less by, is part of the decoder
            decoder, target_BD = {name: tensor.detach() for name, tensor in decoder.items()}, target_BD.detach()
        return {
            "l1_loss": state.knobs.l1_coefficient * l1_per_token_B.mean(),
            "auxiliary_reconstruction_loss": squared_error(gate_BF @ decoder["W_dec"] + decoder["b_dec"], target_BD),
        }


class GatedForm(ExportedForm):
    """`f = 1[pi > 0] * relu(mu)`, as it trains."""

    vectors = ("b_gate", "b_mag", "r_mag")

    def encode(self, cfg: Cfg, tensors: Tensors, x_ND: Tensor) -> Tensor:
        """Return the latents [N, F]."""
        gate_NF = x_ND @ tensors["W_enc"] + tensors["b_gate"]
        magnitude_NF = x_ND @ (tensors["W_enc"] * tensors["r_mag"].exp()) + tensors["b_mag"]
        return magnitude_NF.relu() * (gate_NF > 0)


register_form("gated", GatedForm())
