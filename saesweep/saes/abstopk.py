"""The AbsTopK SAE (arXiv 2510.00404): a topk SAE that selects by magnitude and keeps signs, so that a latent stands for two directions."""

# Shape suffix legend:  B = tokens in a batch, N = tokens (any leading dimensions), F = d_sae

from __future__ import annotations

import torch
from torch import Tensor

from saesweep.saes.architecture import register_architecture
from saesweep.saes.forms import register_form
from saesweep.saes.topk import TopK, TopKForm


def keep_largest_magnitudes(hidden_NF: Tensor, k: int) -> Tensor:
    """Return each token's `k` of largest magnitude, with their signs, 0 elsewhere."""
    top = hidden_NF.abs().topk(k, dim=-1, sorted=False).indices
    return torch.zeros_like(hidden_NF).scatter(-1, top, hidden_NF.gather(-1, top))


@register_architecture("abstopk")
class AbsTopK(TopK):
    """The k largest `|h'|` of each token, exported as abstopk. Dead latents learn by magnitude as well."""

    def select(self, hidden_BF: Tensor, k: float) -> Tensor:
        """Keep each token's `int(k)` of largest magnitude, with their signs."""
        return keep_largest_magnitudes(hidden_BF, int(k))

    def size(self, hidden_BF: Tensor) -> Tensor:
        """Return magnitudes [B, F]."""
        return hidden_BF.abs()


class AbsTopKForm(TopKForm):
    """A topk that selects by magnitude."""

    def select(self, hidden_NF: Tensor, k: int) -> Tensor:
        """Return the latents [N, F]."""
        return keep_largest_magnitudes(hidden_NF, k)


register_form("abstopk", AbsTopKForm())
