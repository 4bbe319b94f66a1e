"""The HierarchicalTopK SAE (arXiv 2505.24473): one topk SAE for a whole range of k."""

# Shape suffix legend:  B = tokens in a batch, D = d_in, F = d_sae

from __future__ import annotations

import torch
from torch import Tensor

from saesweep.saes.architecture import ForwardState, register_architecture, squared_error
from saesweep.saes.topk import TopK
from saesweep.specs.architectures import MultiKSpec


@register_architecture("multi_k")
class MultiK(TopK):
    """`mse` is the mean over the levels j of `E |x - x^_j|^2`, where `x^_j` uses each token's j largest latents.

    The training form has the largest level's latents: they say which are dead, and leave the residual that dead ones learn from.
    The exported form is a topk of `spec.k`, which may be any k up to that; its weights serve all of them.
    """

    spec: MultiKSpec

    def select(self, hidden_BF: Tensor, k: float) -> Tensor:
        """Keep each token's largest, as many as the largest level has, where positive; `k` is that of the exported form."""
        return super().select(hidden_BF, self.spec.levels[-1])

    def reconstruction_loss(self, state: ForwardState) -> Tensor:
        """Return the mean of the levels' errors."""
        inner = (super(MultiK, self).select(state.hidden_pre_BF, k) for k in self.spec.levels[:-1])
        recons = [*(state.undo(self.decode(state.params, acts_BF)) for acts_BF in inner), state.recon_BD]
        return torch.stack([squared_error(recon_BD, state.target_BD) for recon_BD in recons]).mean()
