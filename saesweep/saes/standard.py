"""The standard SAE: ReLU latents and an Lp penalty weighted by decoder norms."""

# Shape suffix legend:  B = tokens in a batch, D = d_in, F = d_sae

from __future__ import annotations

import torch
from torch import Tensor

from saesweep.saes.architecture import Architecture, ForwardState, Knobs, Params, register_architecture
from saesweep.saes.forms import ExportedForm, register_form
from saesweep.specs.architectures import StandardSpec


@register_architecture("standard")
class Standard(Architecture[StandardSpec]):
    """`f = relu(h)`; loss `+ l1_coefficient * E || f * |d| ||_p`."""

    @property
    def reads_dead(self) -> bool:
        """No loss term does."""
        return False

    def init(
        self, generator: torch.Generator, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> Params:
        """Return `W_enc`, `W_dec`, `b_dec` and `b_enc` = 0."""
        params = self.init_dictionary(generator, dtype=dtype, device=device)
        return params | {"b_enc": torch.zeros(self.d_sae, dtype=dtype, device=device)}

    def encode_parts(self, params: Params, x_BD: Tensor, knobs: Knobs) -> tuple[Tensor, Tensor]:
        """Return (relu(h), h)."""
        hidden_BF = x_BD @ params["W_enc"] + params["b_enc"]
        return hidden_BF.relu(), hidden_BF

    def penalties(self, state: ForwardState) -> dict[str, Tensor]:
        """Return `l1_loss`."""
        weighted_BF = state.feature_acts_BF * self.decoder_norms(state.params["W_dec"])
        return {"l1_loss": (state.knobs.l1_coefficient * weighted_BF.norm(p=self.spec.lp_norm, dim=-1)).mean()}


register_form("standard", ExportedForm())
