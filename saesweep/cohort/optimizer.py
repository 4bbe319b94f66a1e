"""One fused Adam step per SAE, with the gradient-norm clip folded in, and Adam's moments in bfloat16 where memory counts more than exactness.

The wide moments take a third less memory for each slot.

Shape suffixes: D = d_in, F = d_sae; the moments have none: every tensor is one parameter or one of its moments, in its own layout.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.optim.adam import adam

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


MAX_GRAD_NORM = 1.0
"""Gradient clipping per SAE, as SAELens has it."""
ADAM_EPS = 1e-8
"""What is added to the root of the second moment, as in torch.optim.Adam."""
CLIP_EPS = 1e-6
"""What torch.nn.utils.clip_grad_norm_ adds to the norm before dividing."""


def adam_step_(
    params: Mapping[str, Tensor],
    exp_avg: Mapping[str, Tensor],
    exp_avg_sq: Mapping[str, Tensor],
    grads: Mapping[str, Tensor],
    *,
    step: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float = ADAM_EPS,
    max_grad_norm: float = MAX_GRAD_NORM,
) -> Tensor:
    """Clip one SAE's gradients by their global norm and take one Adam step, in place.

    Equal to `torch.nn.utils.clip_grad_norm_` followed by `torch.optim.Adam.step`: the factor is
    `min(1, max_grad_norm / (norm + 1e-6))` over all of this SAE's parameters, never over the cohort.

    Args:
        params: Master weights, float32 or float64. Each is contiguous, or (`W_enc` [D, F]) the transposed view of a
            contiguous tensor.
        exp_avg: First moments, laid out as `params`.
        exp_avg_sq: Second moments, laid out as `params`.
        grads: Gradients of any layout; scratch afterwards (the clip may be written into them).
        step: Number of this step, counted from 1; sets the bias corrections.
        lr: Learning rate of this step.
        beta1: Decay of the first moment.
        beta2: Decay of the second moment.
        eps: Added to the root of the second moment.
        max_grad_norm: Largest global gradient norm let through.

    Returns:
        The gradient norm before clipping, a scalar on the device. Where it is not finite, the weights are spoilt: the
        caller ends that trial.

    Raises:
        ValueError: `step` is below 1, or a moment is not laid out as its parameter.
    """
    if step < 1:
        raise ValueError(f"step counts from 1, got {step}")
    names = list(params)
    dense = {name: row_major(params[name]) for name in names}
    state = [[_same_layout(name, moment[name], params[name]) for name in names] for moment in (exp_avg, exp_avg_sq)]
    flat_grads = [_as_row_major(grads[name], params[name]) for name in names]
    weights = list(dense.values())
    first = weights[0]

    norm = torch.nn.utils.get_total_norm(flat_grads)
    divisor = ((norm + CLIP_EPS) / max_grad_norm).clamp(min=1.0)
    grad_scale: Tensor | None = None
    if first.dtype == torch.float32:
        grad_scale = divisor.float()
    else:
        # The fused kernel reads its scale as float32, which would cost float64 runs half of their digits.
        torch._foreach_div_(flat_grads, divisor)
    # One counter per parameter, because the functional Adam adds one to each of them.
    counters = list(torch.full((len(names),), float(step - 1), device=first.device).unbind())
    adam(
        weights,
        flat_grads,
        state[0],
        state[1],
        [],
        counters,
        fused=True,
        grad_scale=grad_scale,
        amsgrad=False,
        beta1=beta1,
        beta2=beta2,
        lr=lr,
        weight_decay=0.0,
        eps=eps,
        maximize=False,
    )
    return norm


def row_major(param: Tensor) -> Tensor:
    """Return the contiguous tensor behind a parameter: itself, or its transpose where it is a transposed view.

    Raises:
        ValueError: It is neither.
    """
    if param.is_contiguous():
        return param
    if param.ndim == 2 and param.t().is_contiguous():
        return param.t()
    raise ValueError(f"neither contiguous nor a transposed view: shape {tuple(param.shape)}, stride {param.stride()}")


def _same_layout(name: str, moment: Tensor, param: Tensor) -> Tensor:
    if moment.stride() != param.stride() or moment.dtype != param.dtype:
        raise ValueError(
            f"moment of {name}: stride {moment.stride()} and {moment.dtype}, "
            f"but the parameter has {param.stride()} and {param.dtype}"
        )
    return row_major(moment)


def _as_row_major(grad: Tensor, param: Tensor) -> Tensor:
    # Autograd picks its own strides for a gradient, so the reference path may need a copy here; the kernels do not.
    return (grad if param.is_contiguous() else grad.t()).contiguous()
