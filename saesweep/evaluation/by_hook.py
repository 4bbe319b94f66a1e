"""Explained variance at each of the hooks that a crosscoder reads together: streaming sums in float64.

Shape suffixes: N tokens, D = d_in, all hooks together, L hooks, P = width of one of them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from saesweep.specs.joint_hooks import EXPLAINED_AT, hooks_in


class VarianceByHook:
    """Accumulates over batches of any size; every token weighs the same.

    Args:
        hooks: The name of hooks that are read together.
    """

    def __init__(self, hooks: str) -> None:
        self._hooks = hooks_in(hooks)
        self._n = 0
        self._error_L = self._squared_L = torch.zeros(len(self._hooks), dtype=torch.float64)
        self._sum_LP: Tensor | None = None

    def update(self, x_ND: Tensor, recon_ND: Tensor) -> None:
        """Add a batch of activations and their reconstructions."""
        shape = (len(x_ND), len(self._hooks), -1)
        x_NLP, recon_NLP = x_ND.double().reshape(shape), recon_ND.double().reshape(shape)
        self._n += len(x_ND)
        self._error_L = self._error_L.to(x_ND.device) + (x_NLP - recon_NLP).square().sum((0, 2))
        self._squared_L = self._squared_L.to(x_ND.device) + x_NLP.square().sum((0, 2))
        total_LP = x_NLP.sum(0)
        self._sum_LP = total_LP if self._sum_LP is None else self._sum_LP + total_LP

    def compute(self) -> dict[str, float]:
        """Return `explained_variance@<hook>` of every hook; NaN at one without variance.

        Raises:
            ValueError: No batch was added.
        """
        if self._sum_LP is None:
            raise ValueError("no activations to measure on")
        variance_L = self._squared_L - self._sum_LP.square().sum(1) / self._n
        explained_L = torch.where(variance_L > 0, 1 - self._error_L / variance_L, torch.nan)
        return {f"{EXPLAINED_AT}{hook}": value for hook, value in zip(self._hooks, explained_L.tolist(), strict=True)}
