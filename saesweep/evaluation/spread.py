"""Standard errors over contexts: tokens of one context are not independent, contexts are.

Shape suffixes: C contexts, N tokens, S SAEs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor


def ratio_stderr(numerator_C: Tensor, denominator_C: Tensor) -> float:
    """Return the standard error of `sum(numerator) / sum(denominator)` over contexts; NaN for fewer than two.

    The linearised (delta-method) estimate: contexts may have different numbers of tokens, and a metric may be a ratio of
    two means, such as the share of variance that is not explained.
    """
    used = denominator_C != 0
    numerator_C, denominator_C = numerator_C[used].double(), denominator_C[used].double()
    n = numerator_C.numel()
    total = float(denominator_C.sum())
    if n < 2 or total == 0:
        return float("nan")
    residual_C = numerator_C - float(numerator_C.sum()) / total * denominator_C
    return float((residual_C.square().sum() * n / (n - 1)).sqrt()) / abs(total)


@dataclass(frozen=True)
class PairedSums:
    """One metric of S SAEs by context, so that sums over the same contexts can be compared: `offset + sign num / den`."""

    numerator_SC: Tensor
    denominator_C: Tensor
    offset: float = 0.0
    sign: float = 1.0

    @classmethod
    def stacked(cls, parts: Sequence[PairedSums]) -> PairedSums:
        """Return the sums of several measurements of one metric over the same contexts as one."""
        numerator_SC = torch.cat([part.numerator_SC for part in parts])
        return replace(parts[0], numerator_SC=numerator_SC)

    def mean(self) -> PairedSums:
        """Return the mean over the SAEs as one, [1, C]."""
        return replace(self, numerator_SC=self.numerator_SC.mean(0, keepdim=True))

    def values(self) -> Tensor:
        """Return the metric of each SAE, [S]; NaN where there is nothing to divide by."""
        total = self.denominator_C.sum()
        return self.offset + self.sign * self.numerator_SC.sum(1) / torch.where(total == 0, torch.nan, total)

    def stderr(self, weights_S: Tensor) -> float:
        """Return the standard error over contexts of a weighted sum of the SAEs' values.

        Args:
            weights_S: Sum to 1 for a mean or an interpolation, to 0 for a difference.
        """
        return ratio_stderr(weights_S.double() @ self.numerator_SC, self.denominator_C)


class ByContext:
    """Takes one metric of every SAE by context while they are measured, to compare them on the same contexts later.

    Args:
        metric: A name of `METRICS`.
    """

    def __init__(self, metric: str) -> None:
        self.metric = metric
        self.sums: list[PairedSums] | None = None
        """One for each SAE, numerators [1, C]; None for a metric that contexts do not add up to (`dead_fraction`,
        `relative_reconstruction_bias`, recovery scores, those of plugins) or that lacks the language model it needs."""


class ContextSums:
    """Sums of per-token quantities by context; contexts come in order, each in one or several batches."""

    def __init__(self) -> None:
        self._sums: dict[str, list[Tensor]] = {}
        self._contexts: list[Tensor] = []

    def add(self, context_N: Tensor, **values: Tensor) -> None:
        """Add per-token values [N] or [N, D] of tokens whose context numbers are `context_N`, ascending."""
        contexts_C, position_N = _groups(context_N)
        self._contexts.append(contexts_C)
        for name, value in values.items():
            value = value.double().cpu()
            total = torch.zeros(len(contexts_C), *value.shape[1:], dtype=torch.float64)
            self._sums.setdefault(name, []).append(total.index_add_(0, position_N, value))

    def of(self, name: str) -> Tensor:
        """Return one quantity's sums, [C] or [C, D]."""
        _, position = _groups(torch.cat(self._contexts))
        parts = torch.cat(self._sums[name])
        total = torch.zeros(int(position[-1]) + 1, *parts.shape[1:], dtype=torch.float64)
        return total.index_add_(0, position, parts)


def _groups(numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distinct numbers, ascending, and the place of each entry among them."""
    distinct, places = np.unique(numbers.numpy(), return_inverse=True)
    return torch.from_numpy(distinct), torch.from_numpy(places)
