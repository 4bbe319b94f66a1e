"""Between what modules return and the [N,T,D] that SAEs see.

Modules of transformers return a tensor, or a tuple or `ModelOutput` whose first entry is the tensor; hooks have shapes of their own.

Shape suffixes: N = contexts, T = tokens per context, H = heads, Dh = width of a head, D = width of the SAE's input.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from saesweep.errors import UserError


def first_tensor(output: Any) -> Tensor | None:
    """Return the tensor that a module's output stands for, None where it holds none."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, dict):  # transformers' ModelOutput
        output = tuple(output.values())
    if isinstance(output, (tuple, list)) and output and isinstance(output[0], Tensor):
        return output[0]
    return None


def exchange_output(new: Callable[[Tensor], Tensor], output: Any) -> Any:
    """Return a module's output with its tensor exchanged for what `new` makes of it."""
    if isinstance(output, Tensor):
        return new(output)
    if isinstance(output, dict):
        first = next(iter(output))
        return type(output)(**{**output, first: new(output[first])})
    return type(output)((new(output[0]), *output[1:]))


def only_first(new: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return a function that changes the first output of a forward pass and leaves those of later calls as they are.

    A module may run more than once (shared layers); activations are read at its first call.
    """
    calls = 0

    def first(output: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return new(output) if calls == 1 else output

    return first


def shape_activations(acts: Tensor, head_index: int | None = None) -> Tensor:
    """Return activations as [N,T,D].

    Args:
        acts: [N,T,D], or [N,T,H,Dh] where the hook has a head axis (`hook_z`).
        head_index: The head to keep (D = Dh); None joins all heads (D = H * Dh), as SAELens' `hook_z` reshaping does.

    Raises:
        UserError: `head_index` on a hook without a head axis, or beyond its last head; an output of another rank.
    """
    if acts.ndim == 4:
        if head_index is None:
            return acts.flatten(2)
        _check_head(head_index, acts.shape[2])
        return acts[:, :, head_index]
    if acts.ndim != 3:
        raise UserError(
            f"base.hook_name: its output has shape {tuple(acts.shape)}; a hook must give [context, token, width] "
            "or [context, token, head, width]"
        )
    if head_index is not None:
        raise UserError(
            f"base.hook_head_index: {head_index} is given, but the hook has no head axis; "
            "leave it out or use a hook such as blocks.0.attn.hook_z"
        )
    return acts


def replace_activations(acts: Tensor, new_NTD: Tensor, head_index: int | None = None) -> Tensor:
    """Return `acts` with the part that `shape_activations` shows exchanged for `new_NTD`; shape and type of `acts` stay."""
    new_NTD = new_NTD.to(acts.dtype)
    if acts.ndim == 4 and head_index is not None:
        changed = acts.clone()
        changed[:, :, head_index] = new_NTD
        return changed
    return new_NTD.reshape(acts.shape)


def _check_head(head_index: int, n_heads: int) -> None:
    if head_index >= n_heads:
        raise UserError(
            f"base.hook_head_index: {head_index} is too large; the hook has {n_heads} heads (0 to {n_heads - 1})"
        )
