"""How one training step gets its gradients: the seam between the plain reference path and the exact sparse kernels.

Shape suffixes: B tokens of the batch, D = d_in, F = d_sae.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from saesweep.cohort.compiled import CompiledForward
from saesweep.saes import Architecture, Knobs, Params


@dataclass(frozen=True)
class StepGradients:
    """What one SAE's step yields. The tensors may be scratch that the next call overwrites: use them first."""

    loss: Tensor
    """Scalar, on the device."""
    losses: dict[str, Tensor]
    """The loss's terms by SAELens' names, scalars on the device."""
    grads: Params
    """Gradient of every parameter, named and shaped as the parameters are."""
    firing_F: Tensor
    """Number of tokens of the batch at which each latent fired, int64."""


class GradientEngine(Protocol):
    """Computes loss and gradients of one SAE on one batch."""

    def supports(self, architecture: Architecture[Any]) -> str | None:
        """Return None where this engine is exact for the architecture, else the reason why it is not."""
        ...

    def step(
        self, architecture: Architecture[Any], params: Params, x_BD: Tensor, knobs: Knobs, dead_F: Tensor | None
    ) -> StepGradients:
        """Return loss, gradients and firing counts for one batch of (scaled) activations.

        Args:
            architecture: Which SAE, with its widths resolved.
            params: Its master weights; not changed.
            x_BD: Activations [B, D].
            knobs: This step's coefficients and k.
            dead_F: True where a latent counts as dead, [F] bool; None where none can be.
        """
        ...


class ReferenceEngine:
    """Plain PyTorch autograd through `Architecture.forward`: the path that every fast path is tested against.

    Args:
        autocast: bfloat16 matrix products.
        compiled: Run the forward pass, and with it the backward pass, through torch.compile.
    """

    def __init__(self, *, autocast: bool = False, compiled: CompiledForward | None = None) -> None:
        self._autocast = autocast
        self._compiled = compiled

    def supports(self, architecture: Architecture[Any]) -> str | None:
        """Return None: autograd is exact for every architecture."""
        return None

    def step(
        self, architecture: Architecture[Any], params: Params, x_BD: Tensor, knobs: Knobs, dead_F: Tensor | None
    ) -> StepGradients:
        """See `GradientEngine.step`."""
        leaves = {name: p.detach().requires_grad_() for name, p in params.items()}
        with torch.enable_grad(), torch.autocast(x_BD.device.type, torch.bfloat16, enabled=self._autocast):
            if self._compiled is not None and self._compiled.takes(architecture, dead_F):
                out = self._compiled(architecture, leaves, x_BD, knobs)
            else:
                out = architecture.forward(leaves, x_BD, knobs, dead_F)
        found = torch.autograd.grad(out.loss, list(leaves.values()), allow_unused=True)
        grads = {
            name: torch.zeros_like(leaf) if grad is None else grad
            for (name, leaf), grad in zip(leaves.items(), found, strict=True)
        }
        return StepGradients(
            loss=out.loss.detach(),
            losses={name: term.detach() for name, term in out.losses.items()},
            grads=grads,
            firing_F=(out.feature_acts_BF.detach() != 0).sum(0),
        )
