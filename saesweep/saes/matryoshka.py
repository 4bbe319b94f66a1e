"""The Matryoshka BatchTopK SAE (arXiv 2503.17547): every prefix of the latents reconstructs by itself."""

# Shape suffix legend:  B = tokens in a batch, D = d_in, F = d_sae

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from saesweep.saes.architecture import ForwardState, register_architecture, squared_error
from saesweep.saes.batchtopk import BatchTopKFamily
from saesweep.specs.architectures import MatryoshkaBatchTopKSpec


@register_architecture("matryoshka_batchtopk")
class MatryoshkaBatchTopK(BatchTopKFamily[MatryoshkaBatchTopKSpec]):
    """BatchTopK `+ sum over inner widths w of E |x - x^_w|^2`, where `x^_w` uses the first w latents.

    The terms are added, not averaged: the weight of a level does not depend on how many there are. With
    `use_matryoshka_aux_loss` the dead latents of a level reconstruct that level's own residual.
    """

    def penalties(self, state: ForwardState) -> dict[str, Tensor]:
        """Return `auxiliary_reconstruction_loss` and an `inner_mse_loss_<w>` per inner width."""
        if self.spec.use_matryoshka_aux_loss:
            losses = {"auxiliary_reconstruction_loss": self._aux_loss_by_level(state)}
        else:
            losses = super().penalties(state)
        for _, width, recon_BD in self._levels(state, self.spec.inner_widths):
            losses[f"inner_mse_loss_{width}"] = squared_error(recon_BD, state.target_BD)
        return losses

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
