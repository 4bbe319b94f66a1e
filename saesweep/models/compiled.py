"""Compiles a model's blocks (`compile_llm`), and leaves those alone that a hook looks into."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn


class CompiledBlocks:
    """The blocks of a model with a compiled forward.

    Block by block, as all blocks share one compiled code, and as a forward pass must be able to end after any of them. A
    hook on a block itself stays outside of the compiled code; a block with a hook inside runs as it is.

    Args:
        model: The model; its blocks are the entries of its first `ModuleList` of several modules of one class.
        mode: Mode of `torch.compile`.
    """

    def __init__(self, model: nn.Module, mode: str | None) -> None:
        self._plain: dict[str, tuple[nn.Module, Any]] = {}
        for name, block in _blocks(model).items():
            self._plain[name] = (block, block.forward)
            block.forward = torch.compile(block.forward, mode=mode)

    @property
    def names(self) -> list[str]:
        """Names of the blocks that run compiled."""
        return list(self._plain)

    def open_for(self, modules: Iterable[str]) -> None:
        """Give the blocks that contain one of these modules their plain forward back, for good."""
        for module in modules:
            for name in [name for name in self._plain if module.startswith(f"{name}.")]:
                block, forward = self._plain.pop(name)
                block.forward = forward


def _blocks(model: nn.Module) -> dict[str, nn.Module]:
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len({type(child) for child in module}) == 1:
            return {f"{name}.{number}": child for number, child in enumerate(module)}
    return {}
