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
    """`f = relu(h)`; loss `+ l1_coefficient * E || f * |d| ||_p`, or its p-th power (`sparsity_function`)."""

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
        p = self.spec.lp_norm if state.knobs.lp_norm is None else state.knobs.lp_norm
        return {"l1_loss": (state.knobs.l1_coefficient * self._sizes(state, p)).mean()}

    @torch.no_grad()
    def observations(self, state: ForwardState) -> Tensor | None:
        """Return the mean penalty, without its coefficient, at this step's p and at the next one's, [2], while p is annealed."""
        knobs = state.knobs
        if knobs.lp_norm is None or knobs.next_lp_norm is None:
            return None
        return torch.stack([self._sizes(state, p).mean() for p in (knobs.lp_norm, knobs.next_lp_norm)])

    def _sizes(self, state: ForwardState, p: float) -> Tensor:
        """Return each token's penalty [B]: `||f * |d|||_p`, or its p-th power."""
        weighted_BF = state.feature_acts_BF * self.decoder_norms(state.params["W_dec"])
        if self.spec.sparsity_function == "Lp":
            norms_B: Tensor = weighted_BF.norm(p=p, dim=-1)
            return norms_B
        # Without the zeros: there a power below 1 has an infinite derivative.
        active_BF = weighted_BF > 0
        powers_BF: Tensor = torch.where(active_BF, weighted_BF, 1.0).pow(p) * active_BF
        return powers_BF.sum(dim=-1)


register_form("standard", ExportedForm())
