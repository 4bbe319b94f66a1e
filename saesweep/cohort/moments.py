"""Adam's moments in bfloat16: a third less memory for each slot, at the price of exactness.

Shape suffixes: none; every tensor is one parameter or one of its moments, in its own layout.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

_LOW_BITS = 16
"""Bits of a float32 that bfloat16 drops."""


class WideMoments:
    """Moments of one SAE as the fused step wants them: of the parameters' type.

    Moments kept in bfloat16 are widened for a step and rounded back stochastically. Rounding to nearest would freeze
    the second moment: at beta2 = 0.999 it moves by a thousandth a step, less than half of bfloat16's last place.
    With stochastic rounding its expectation is exact.

    Args:
        params: Master weights; the type and layout of the wide moments.
        exp_avg: First moments by parameter name, as they are kept.
        exp_avg_sq: Second moments, likewise.
        seed: Of the rounding, with `step`: a resumed run rounds alike.
        step: Number of the step.
    """

    def __init__(
        self,
        params: Mapping[str, Tensor],
        exp_avg: Mapping[str, Tensor],
        exp_avg_sq: Mapping[str, Tensor],
        *,
        seed: int,
        step: int,
    ) -> None:
        self._kept = (exp_avg, exp_avg_sq)
        # `to` returns the tensor itself where the type is right: the step is then taken in place.
        self.exp_avg, self.exp_avg_sq = (
            {name: kept[name].to(p.dtype) for name, p in params.items()} for kept in self._kept
        )
        self._seed = (seed * 1_000_003 + step) % (1 << 63)

    @torch.no_grad()
    def keep_(self) -> None:
        """Write the stepped moments back to where they are kept; nothing to do where they were not widened."""
        generator: torch.Generator | None = None
        for kept, wide in zip(self._kept, (self.exp_avg, self.exp_avg_sq), strict=True):
            for name, moment in kept.items():
                if moment is wide[name]:
                    continue
                if generator is None:
                    generator = torch.Generator(moment.device).manual_seed(self._seed)
                moment.copy_(round_stochastically(wide[name].float(), generator))


def round_stochastically(values: Tensor, generator: torch.Generator) -> Tensor:
    """Return float32 values rounded to bfloat16, up or down with the probabilities that keep the mean.

    Infinities and NaN pass unchanged.
    """
    noise = torch.empty_like(values, dtype=torch.int32).random_(0, 1 << _LOW_BITS, generator=generator)
    rounded = ((values.view(torch.int32) + noise) >> _LOW_BITS << _LOW_BITS).view(torch.float32)
    return torch.where(torch.isfinite(values), rounded, values).to(torch.bfloat16)
