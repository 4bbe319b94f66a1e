"""Memory that all SAEs of a cohort share, one after the other, within a step."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Scratch:
    """Named work buffers that only ever grow.

    Two SAEs of different shape get views of the same memory, so that a slot owns its weights and moments alone; and the
    operating system zeroes each page once per run, not once per step.
    """

    def __init__(self) -> None:
        self._flat: dict[tuple[str, torch.dtype, torch.device], Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Return the buffer `name` as a contiguous, uninitialised tensor.

        Args:
            name: Two buffers in use at the same time need two names.
            shape: Its shape for this use.
            like: Gives dtype and device.
        """
        key, size = (name, like.dtype, like.device), math.prod(shape)
        flat = self._flat.get(key)
        if flat is None or flat.numel() < size:
            # Dropped first: never hold the old and the grown one together.
            self._flat.pop(key, None)
            flat = self._flat[key] = torch.empty(size, dtype=like.dtype, device=like.device)
        return flat[:size].view(shape)

    def bytes(self) -> int:
        """Return the memory held now."""
        return sum(flat.numel() * flat.element_size() for flat in self._flat.values())
