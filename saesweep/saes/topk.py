"""The TopK SAE (arXiv 2406.04093), and what the whole family shares: decoder-norm rescaling and the loss on dead latents."""

# Shape suffix legend:  B = tokens in a batch, N = tokens (any leading dimensions), D = d_in, F = d_sae

from __future__ import annotations

from typing import Any, TypeVar

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
from saesweep.saes.folding import fold_decoder_norms
from saesweep.saes.forms import Cfg, ExportedForm, Tensors, positive_int_problem, register_form
from saesweep.saes.normalize import Normalizer
from saesweep.specs.architectures import TopKFamilySpec, TopKSpec

TopKSpecT = TypeVar("TopKSpecT", bound=TopKFamilySpec)


class TopKFamily(Architecture[TopKSpecT]):
    """`h' = h |d|` (with `rescale_acts_by_decoder_norm`), some selection of `relu(h')`, `x^ = (f / |d|) W_dec + b_dec`.

    Loss `+ aux_loss_coefficient * scale * E |a W_dec' - e|^2`: the largest dead `h'` reconstruct the residual `e`.
    """

    @property
    def reads_dead(self) -> bool:
        """The auxiliary loss does."""
        return self.spec.aux_loss_coefficient > 0

    def init(
        self, generator: torch.Generator, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> Params:
        """Return `W_enc`, `W_dec`, `b_dec` and `b_enc` = 0."""
        params = self.init_dictionary(generator, dtype=dtype, device=device)
        return params | {"b_enc": torch.zeros(self.d_sae, dtype=dtype, device=device)}

    def select(self, hidden_BF: Tensor, k: float) -> Tensor:
        """Return the latents [B, F]: `hidden_BF` where it is selected and positive, 0 elsewhere."""
        raise NotImplementedError

    def size(self, hidden_BF: Tensor) -> Tensor:
        """Return what makes a pre-activation large, [B, F]: the largest dead ones learn from the auxiliary loss."""
        return hidden_BF

    def encode_parts(self, params: Params, x_BD: Tensor, knobs: Knobs) -> tuple[Tensor, Tensor]:
        """Return (f, h')."""
        hidden_BF = x_BD @ params["W_enc"] + params["b_enc"]
        if self.spec.rescale_acts_by_decoder_norm:
            hidden_BF = hidden_BF * self.decoder_norms(params["W_dec"])
        return self.select(hidden_BF, knobs.k), hidden_BF

    def decode(self, params: Params, feature_acts_BF: Tensor) -> Tensor:
        """Return the reconstruction [B, D] in the normalised space."""
        return feature_acts_BF @ self.directions(params) + params["b_dec"]

    def directions(self, params: Params) -> Tensor:
        """Return the decoder rows [F, D] that latents multiply: unit vectors where latents carry the norm."""
        W_dec_FD: Tensor = params["W_dec"]
        if self.spec.rescale_acts_by_decoder_norm:
            W_dec_FD = W_dec_FD / self.decoder_norms(W_dec_FD)[:, None]
        return W_dec_FD

    def penalties(self, state: ForwardState) -> dict[str, Tensor]:
        """Return `auxiliary_reconstruction_loss`."""
        loss = self.dead_loss(
            residual_BD=(state.target_BD - state.recon_BD).detach(),
            hidden_BF=state.hidden_pre_BF,
            directions_FD=self.directions(state.params),
            dead_F=state.dead_F,
        )
        return {"auxiliary_reconstruction_loss": self.spec.aux_loss_coefficient * loss}

    def dead_loss(
        self, *, residual_BD: Tensor, hidden_BF: Tensor, directions_FD: Tensor, dead_F: Tensor | None
    ) -> Tensor:
        """Return how badly the largest dead pre-activations reconstruct the residual, scaled down where few are dead.

        The at most `d_out // 2` largest dead `h'` of each token take part, with their sign (no relu) and without `b_dec`, which
        the residual contains already (appendix A.2 of the paper; half the width: B.1). F here may be a slice of the latents.
        """
        if self.spec.aux_loss_coefficient == 0 or dead_F is None or (n_dead := int(dead_F.sum())) == 0:
            return residual_BD.new_zeros(())
        k_full = max(self.d_out // 2, 1)
        dead_BF = torch.where(dead_F, self.size(hidden_BF), -torch.inf)
        top = dead_BF.topk(min(k_full, n_dead), dim=-1, sorted=False).indices
        acts_BF = torch.zeros_like(hidden_BF).scatter(-1, top, hidden_BF.gather(-1, top))
        return min(n_dead / k_full, 1.0) * squared_error(acts_BF @ directions_FD, residual_BD)

    def fold(self, tensors: Params, normalizer: Normalizer, threshold: float | None) -> tuple[Params, dict[str, Any]]:
        """Fold decoder norms as well. Under a scale s the latents become f / s, in which a threshold is divided by s too."""
        rescale = self.spec.rescale_acts_by_decoder_norm
        target_scale = normalizer.of_target.scale
        if rescale and target_scale is None:
            # Before a whitening or factors by layer, which change decoder norms and with them the selection.
            tensors = fold_decoder_norms(tensors, self.decoder_norms(tensors["W_dec"]))
        tensors, fields = super().fold(tensors, normalizer, threshold)
        if rescale and target_scale is not None:
            tensors = fold_decoder_norms(tensors)
        if threshold is not None:
            if rescale and target_scale is not None:
                threshold /= target_scale
            tensors = tensors | {"threshold": torch.full_like(tensors["b_enc"], threshold)}
        return tensors, fields


def keep_largest(hidden_NF: Tensor, k: int) -> Tensor:
    """Return each token's `k` largest where positive, 0 elsewhere."""
    top = hidden_NF.topk(k, dim=-1, sorted=False)
    return torch.zeros_like(hidden_NF).scatter(-1, top.indices, top.values.relu())


@register_architecture("topk")
class TopK(TopKFamily[TopKSpec]):
    """The k largest latents of each token, exported as topk."""

    def select(self, hidden_BF: Tensor, k: float) -> Tensor:
        """Keep each token's `int(k)` largest, where positive."""
        return keep_largest(hidden_BF, int(k))

    def fold(self, tensors: Params, normalizer: Normalizer, threshold: float | None) -> tuple[Params, dict[str, Any]]:
        """Fold as the family does, and state what a topk's `cfg.json` adds."""
        tensors, fields = super().fold(tensors, normalizer, threshold)
        # Once whitened, decoder rows are no unit vectors any more: their norms are in the encoder and must not count twice.
        # Nor are they once the layers of a crosscoder are scaled each by itself.
        rescale = self.spec.rescale_acts_by_decoder_norm and normalizer.whitening is None
        return tensors, {**fields, "k": self.spec.k, "rescale_acts_by_decoder_norm": rescale}


class TopKForm(ExportedForm):
    """The `k` largest `h'` of each token, multiplied by decoder norms where `rescale_acts_by_decoder_norm` says so."""

    def problems(self, cfg: Cfg) -> list[str]:
        """Return what is wrong with `k`."""
        return positive_int_problem(cfg, "k", max_field="d_sae")

    def select(self, hidden_NF: Tensor, k: int) -> Tensor:
        """Return the latents [N, F]."""
        return keep_largest(hidden_NF, k)

    def encode(self, cfg: Cfg, tensors: Tensors, x_ND: Tensor) -> Tensor:
        """Return the latents [N, F]."""
        hidden_NF = self.pre_acts(tensors, x_ND)
        if cfg.get("rescale_acts_by_decoder_norm", False):
            hidden_NF = hidden_NF * tensors["W_dec"].norm(dim=-1)
        return self.select(hidden_NF, int(cfg["k"]))

    def decode(self, cfg: Cfg, tensors: Tensors, feature_acts_NF: Tensor) -> Tensor:
        """Return the reconstruction [N, D]."""
        if cfg.get("rescale_acts_by_decoder_norm", False):
            feature_acts_NF = feature_acts_NF / tensors["W_dec"].norm(dim=-1)
        return super().decode(cfg, tensors, feature_acts_NF)


register_form("topk", TopKForm())
