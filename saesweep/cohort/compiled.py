"""The reference path's forward pass through torch.compile (`compile_sae`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from saesweep.errors import UserError
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

    def __call__(self, architecture: Architecture[Any], params: Params, x_BD: Tensor, knobs: Knobs) -> TrainOutput:
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
                return self._compiled(architecture, params, x_BD, replace(knobs, **as_tensors))
        except (BackendCompilerFailed, InductorError) as error:
            reason = str(getattr(error, "inner_exception", error)).strip().splitlines()[0]
            raise UserError(
                f"base.compile_sae: torch.compile failed ({reason}); on a CPU it needs a C++ compiler. Leave compile_sae out"
            ) from error


def _forward(architecture: Architecture[Any], params: Params, x_BD: Tensor, knobs: Knobs) -> TrainOutput:
    return architecture.forward(params, x_BD, knobs, None)
