"""How one training step gets its gradients: the seam between the plain reference path and the exact sparse kernels.

The reference path's forward pass goes through torch.compile where `compile_sae` says so.

Shape suffixes: B tokens of the batch, D = d_in, F = d_sae.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from saesweep.errors import UserError, first_line
from saesweep.saes import Architecture, Knobs, Params, TrainOutput

_NO_LIMIT = 1 << 20


class CompiledForward:
    """`Architecture.forward`, compiled once per architecture, shape and k.

    What is compiled depends on the arguments of a call alone, never on the calls before it, so that a resumed run computes
    what an uninterrupted one does: every k has code of its own, coefficients are tensors, and nothing falls back to eager
    code after so many variants. A loss on dead latents has their number in its shapes: `takes` refuses those steps.

    Args:
        mode: Mode of `torch.compile`.
    """

    def __init__(self, mode: str | None) -> None:
        self._compiled: Callable[..., TrainOutput] = torch.compile(_forward, mode=mode, dynamic=False)

    def takes(self, architecture: Architecture[Any], dead_F: Tensor | None) -> bool:
        """Return whether a step runs compiled: not where a loss on dead latents takes part."""
        return dead_F is None or not architecture.reads_dead

    def __call__(
        self,
        architecture: Architecture[Any],
        params: Params,
        x_BD: Tensor,
        knobs: Knobs,
        target_BD: Tensor | None = None,
    ) -> TrainOutput:
        """Run one training forward pass without dead latents.

        Raises:
            UserError: This machine cannot compile it.
        """
        names = ("l1_coefficient", "l0_coefficient")
        as_tensors: dict[str, Any] = {
            name: torch.tensor(getattr(knobs, name), dtype=params["W_dec"].dtype, device=x_BD.device) for name in names
        }
        from torch._dynamo import config
        from torch._dynamo.exc import BackendCompilerFailed
        from torch._inductor.exc import InductorError

        try:
            with config.patch(recompile_limit=_NO_LIMIT, accumulated_recompile_limit=_NO_LIMIT):
                return self._compiled(architecture, params, x_BD, replace(knobs, **as_tensors), target_BD)
        except (BackendCompilerFailed, InductorError) as error:
            reason = first_line(getattr(error, "inner_exception", error))
            raise UserError(
                f"base.compile_sae: torch.compile failed ({reason}); on a CPU it needs a C++ compiler. Leave compile_sae out"
            ) from error


def _forward(
    architecture: Architecture[Any], params: Params, x_BD: Tensor, knobs: Knobs, target_BD: Tensor | None
) -> TrainOutput:
    return architecture.forward(params, x_BD, knobs, None, target_BD)


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
    observed: Tensor | None = None
    """What `Architecture.observations` returns."""


class GradientEngine(Protocol):
    """Computes loss and gradients of one SAE on one batch."""

    def supports(self, architecture: Architecture[Any]) -> str | None:
        """Return None where this engine is exact for the architecture, else the reason why it is not."""
        ...

    def step(
        self,
        architecture: Architecture[Any],
        params: Params,
        x_BD: Tensor,
        knobs: Knobs,
        dead_F: Tensor | None,
        target_BD: Tensor | None = None,
    ) -> StepGradients:
        """Return loss, gradients and firing counts for one batch of (scaled) activations.

        Args:
            architecture: Which SAE, with its widths resolved.
            params: Its master weights; not changed.
            x_BD: Activations [B, D].
            knobs: This step's coefficients and k.
            dead_F: True where a latent counts as dead, [F] bool; None where none can be.
            target_BD: What a transcoder reconstructs, scaled as well; None for `x_BD`.
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
        self,
        architecture: Architecture[Any],
        params: Params,
        x_BD: Tensor,
        knobs: Knobs,
        dead_F: Tensor | None,
        target_BD: Tensor | None = None,
    ) -> StepGradients:
        """See `GradientEngine.step`."""
        leaves = {name: p.detach().requires_grad_() for name, p in params.items()}
        with torch.enable_grad(), torch.autocast(x_BD.device.type, torch.bfloat16, enabled=self._autocast):
            if self._compiled is not None and self._compiled.takes(architecture, dead_F):
                out = self._compiled(architecture, leaves, x_BD, knobs, target_BD)
            else:
                out = architecture.forward(leaves, x_BD, knobs, dead_F, target_BD)
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
            observed=out.observed,
        )
