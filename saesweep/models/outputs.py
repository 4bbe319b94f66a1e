"""What modules of transformers return: a tensor, or a tuple or `ModelOutput` whose first entry is the tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor


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
