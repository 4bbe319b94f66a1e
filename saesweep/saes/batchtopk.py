"""The BatchTopK SAE (arXiv 2412.06410): k latents per token on average over the batch; exported as a jumprelu."""

# Shape suffix legend:  B = tokens in a batch, D = d_in, F = d_sae

from __future__ import annotations

from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from saesweep.saes.architecture import Knobs, Params, register_architecture
from saesweep.saes.topk import TopKFamily
from saesweep.specs.architectures import BatchTopKSpec

BatchTopKSpecT = TypeVar("BatchTopKSpecT", bound=BatchTopKSpec)


class BatchTopKFamily(TopKFamily[BatchTopKSpecT]):
    """The `int(k B)` largest `relu(h')` of the whole batch.

    A published SAE cannot look at a batch, so the exported form has one threshold for all latents, from `calibrate_threshold`.
    """

    needs_threshold: ClassVar[bool] = True

    def select(self, hidden_BF: Tensor, k: float) -> Tensor:
        """Keep the batch's `int(k B)` largest, where positive."""
        flat = hidden_BF.relu().flatten()
        top = flat.topk(int(k * hidden_BF.shape[0]), sorted=False)
        return torch.zeros_like(flat).scatter(-1, top.indices, top.values).reshape(hidden_BF.shape)

    @torch.no_grad()
    def pre_acts_for_threshold(self, params: Params, x_BD: Tensor) -> Tensor:
        """Return `relu(h')` [B, F] of activations after the run's `Normalizer`: what `calibrate_threshold` takes."""
        hidden_BF = self.encode_parts(params, self.encoder_input(params, x_BD), Knobs(k=0))[1]
        return hidden_BF.relu()


@register_architecture("batchtopk")
class BatchTopK(BatchTopKFamily[BatchTopKSpec]):
    """The plain member of the family."""
