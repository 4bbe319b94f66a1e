"""Explained variance without attention sinks. Definition: docs/metrics.md.

Shape suffixes: N tokens, D = d_in, C contexts.
"""

from __future__ import annotations

import torch
from torch import Tensor

from saesweep.evaluation.spread import ContextSums, PairedSums, ratio_stderr

NO_SINKS = "explained_variance_no_sinks"


class VarianceWithoutSinks:
    """Streaming sums in float64 over the tokens that are no sinks.

    Args:
        limit: The norm beyond which a token is a sink.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._tokens = 0
        self._error_squared = 0.0
        self._x_squared = 0.0
        self._sum_x_D: Tensor | None = None
        self._by_context: ContextSums | None = None

    def update(self, x_ND: Tensor, recon_ND: Tensor, context_N: Tensor | None = None) -> None:
        """Add a batch of activations and their reconstructions, with the context that each token is from for errors."""
        keep_N = ~(torch.linalg.vector_norm(x_ND, dim=-1) > self._limit)
        x, recon = x_ND[keep_N].double(), recon_ND[keep_N].double()
        error_N, squared_N = (x - recon).square().sum(-1), x.square().sum(-1)
        self._tokens += x.shape[0]
        self._error_squared += float(error_N.sum())
        self._x_squared += float(squared_N.sum())
        self._sum_x_D = x.sum(0) if self._sum_x_D is None else self._sum_x_D + x.sum(0)
        if context_N is not None:
            self._by_context = self._by_context or ContextSums()
            self._by_context.add(
                context_N[keep_N.cpu()],
                error_squared=error_N,
                x_squared=squared_N,
                x=x,
                tokens=torch.ones_like(error_N),
            )

    def compute(self) -> float:
        """Return the explained variance; NaN without variance."""
        if self._sum_x_D is None or self._tokens == 0:
            return float("nan")
        variance = self._x_squared - float(self._sum_x_D.square().sum()) / self._tokens
        return 1 - self._error_squared / variance if variance > 0 else float("nan")

    def by_context(self) -> PairedSums:
        """Return it by context, numerator [1, C].

        Raises:
            ValueError: The batches came without context numbers.
        """
        sums = self._by_context
        if sums is None or self._sum_x_D is None:
            raise ValueError("no context numbers to sum by")
        mean_D = self._sum_x_D.cpu() / self._tokens
        variance_C = sums.of("x_squared") - 2 * sums.of("x") @ mean_D + sums.of("tokens") * mean_D.square().sum()
        return PairedSums(sums.of("error_squared")[None], variance_C, offset=1.0, sign=-1.0)

    def standard_error(self) -> float:
        """Return the standard error over contexts.

        Raises:
            ValueError: The batches came without context numbers.
        """
        sums = self.by_context()
        return ratio_stderr(sums.numerator_SC[0], sums.denominator_C)
