"""The Matryoshka BatchTopK SAE (arXiv 2503.17547): every prefix of the latents reconstructs by itself."""

# Shape suffix legend:  B = tokens in a batch, P = pairs of neighbours in it, D = d_in, F = d_sae

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from saesweep.saes.architecture import ForwardState, register_architecture, squared_error
from saesweep.saes.batchtopk import BatchTopKFamily
from saesweep.specs.architectures import MatryoshkaBatchTopKSpec


@register_architecture("matryoshka_batchtopk")
class MatryoshkaBatchTopK(BatchTopKFamily[MatryoshkaBatchTopKSpec]):
    """BatchTopK `+ sum over inner widths w of E |x - x^_w|^2`, where `x^_w` uses the first w latents.

    The terms are added, not averaged: the weight of a level does not depend on how many there are. With
    `use_matryoshka_aux_loss` the dead latents of a level reconstruct that level's own residual.

    With `temporal_coefficient` it is a Temporal SAE (arXiv 2511.05541): of all tokens of the batch, the first level's latents
    are to be most alike those of the neighbour. Rows 2i and 2i + 1 are neighbours (`neighbour_pairs`).
    """

    def penalties(self, state: ForwardState) -> dict[str, Tensor]:
        """Return `auxiliary_reconstruction_loss` and an `inner_mse_loss_<w>` per inner width."""
        if self.spec.use_matryoshka_aux_loss:
            losses = {"auxiliary_reconstruction_loss": self._aux_loss_by_level(state)}
        else:
            losses = super().penalties(state)
        for _, width, recon_BD in self._levels(state, self.spec.inner_widths):
            losses[f"inner_mse_loss_{width}"] = squared_error(recon_BD, state.target_BD)
        if self.spec.temporal_coefficient > 0:
            losses["temporal_loss"] = self.spec.temporal_coefficient * self._contrast(state.feature_acts_BF)
        return losses

    def _contrast(self, feature_acts_BF: Tensor) -> Tensor:
        """Return the contrastive loss between a token and its neighbour, both ways: cross-entropies of products of latents."""
        width = self.spec.matryoshka_widths[0]
        previous_PF, current_PF = feature_acts_BF[0::2, :width], feature_acts_BF[1::2, :width]
        logits_PP = current_PF @ previous_PF.t()
        neighbour_P = torch.arange(logits_PP.shape[0], device=logits_PP.device)
        return (cross_entropy(logits_PP, neighbour_P) + cross_entropy(logits_PP.t(), neighbour_P)) / 2

    def _levels(self, state: ForwardState, widths: tuple[int, ...]) -> Iterator[tuple[int, int, Tensor]]:
        """Yield (previous width, width, reconstruction [B, D] from the first `width` latents)."""
        directions_FD = self.directions(state.params)
        decoded, start = state.params["b_dec"], 0
        for width in widths:
            decoded = decoded + state.feature_acts_BF[:, start:width] @ directions_FD[start:width]
            yield start, width, state.undo(decoded)
            start = width

    def _aux_loss_by_level(self, state: ForwardState) -> Tensor:
        total = state.x_BD.new_zeros(())
        if state.dead_F is None:
            return total
        directions_FD = self.directions(state.params)
        for start, width, recon_BD in self._levels(state, (*self.spec.inner_widths, self.d_sae)):
            total = total + self.dead_loss(
                residual_BD=(state.target_BD - recon_BD).detach(),
                hidden_BF=state.hidden_pre_BF[:, start:width],
                directions_FD=directions_FD[start:width],
                dead_F=state.dead_F[start:width],
            )
        return self.spec.aux_loss_coefficient * total
