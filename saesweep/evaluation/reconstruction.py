"""How well an exported SAE reconstructs activations, with attention sinks and without, and how sparsely: streaming sums in float64.

Definitions: docs/metrics.md. Shape suffixes: N tokens, D = d_in, F = d_sae, C contexts.
"""

from __future__ import annotations

import torch
from torch import Tensor

from saesweep.evaluation.spread import ContextSums, PairedSums, ratio_stderr

_MEANS = {"mse": "error_squared", "l0": "active", "l1": "l1", "cosine_similarity": "cosine"}
"""Metrics that are means over tokens, and the per-token quantity behind each."""
_ROUNDING = 1e-12
"""Of the mean square of activations: a variance below is what float64 sums leave of none."""


class ReconstructionMetrics:
    """Accumulates over batches of any size; every token weighs the same."""

    def __init__(self) -> None:
        self._n = 0
        self._sum_x_D: Tensor | None = None
        self._sums: dict[str, float] = {}
        self._by_context: ContextSums | None = None
        self._fired_F: Tensor | None = None

    def update(self, x_ND: Tensor, recon_ND: Tensor, acts_NF: Tensor, context_N: Tensor | None = None) -> None:
        """Add a batch of activations [N, D], their reconstructions and the SAE's latents [N, F].

        Args:
            x_ND: Raw activations.
            recon_ND: What the SAE makes of them.
            acts_NF: Its latents.
            context_N: The context that each token is from, ascending numbers on the CPU; for `standard_errors`.
        """
        x = x_ND.double()
        recon = recon_ND.double()
        error = x - recon
        x_norm = x.norm(dim=-1)
        recon_norm = recon.norm(dim=-1)
        self._n += x.shape[0]
        total = x.sum(0)
        self._sum_x_D = total if self._sum_x_D is None else self._sum_x_D + total
        dot = (x * recon).sum(-1)
        is_nonzero = x_norm > 0  # a zero activation has no norm to compare with
        is_active_NF = acts_NF != 0
        values = {
            "x_squared": x.square().sum(-1),
            "error_squared": error.square().sum(-1),
            "recon_squared": recon.square().sum(-1),
            "dot": dot,
            "cosine": dot / (x_norm * recon_norm).clamp_min(1e-12),
            "ratio": torch.where(is_nonzero, recon_norm / x_norm.clamp_min(1e-300), 0),
            "nonzero": is_nonzero,
            "active": is_active_NF.sum(-1),
            "l1": acts_NF.abs().sum(-1, dtype=torch.float64),
        }
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value.sum())
        if context_N is not None:
            self._by_context = self._by_context or ContextSums()
            self._by_context.add(context_N, **values, x=x, tokens=torch.ones_like(dot))
            fired_F = is_active_NF.any(0)
            self._fired_F = fired_F if self._fired_F is None else self._fired_F | fired_F

    def compute(self) -> dict[str, float]:
        """Return mse, explained_variance, l0, l1, cosine_similarity, l2_ratio and relative_reconstruction_bias.

        A share of no variance, and a comparison with activations that are all zero, are undefined: NaN.

        Raises:
            ValueError: No batch was added.
        """
        if self._sum_x_D is None:
            raise ValueError("no activations to measure on")
        n, s = self._n, self._sums
        mse = s["error_squared"] / n
        return {
            "mse": mse,
            "explained_variance": _explained(s["error_squared"], s["x_squared"], self._sum_x_D, n),
            "l0": s["active"] / n,
            "l1": s["l1"] / n,
            "cosine_similarity": s["cosine"] / n if s["nonzero"] else float("nan"),
            "l2_ratio": s["ratio"] / s["nonzero"] if s["nonzero"] else float("nan"),
            "relative_reconstruction_bias": s["recon_squared"] / s["dot"] if s["dot"] else float("nan"),
        }

    def by_context(self, metric: str) -> PairedSums | None:
        """Return one metric by context, numerator [1, C]; None for one whose denominator differs between SAEs.

        Raises:
            ValueError: The batches came without context numbers.
        """
        sums = self._by_context
        if sums is None or self._sum_x_D is None:
            raise ValueError("no context numbers to sum by")
        tokens_C = sums.of("tokens")
        if metric in _MEANS:
            return PairedSums(sums.of(_MEANS[metric])[None], tokens_C)
        if metric == "l2_ratio":
            return PairedSums(sums.of("ratio")[None], sums.of("nonzero"))
        if metric == "explained_variance":
            return PairedSums(sums.of("error_squared")[None], self._variance_C(), offset=1.0, sign=-1.0)
        return None

    def _variance_C(self) -> Tensor:
        sums = self._by_context
        assert sums is not None
        assert self._sum_x_D is not None
        mean_D = self._sum_x_D.cpu() / self._n
        return sums.of("x_squared") - 2 * sums.of("x") @ mean_D + sums.of("tokens") * mean_D.square().sum()

    def standard_errors(self) -> dict[str, float]:
        """Return `<metric>_stderr` over contexts, for every metric of `compute`.

        Raises:
            ValueError: The batches came without context numbers.
        """
        sums = self._by_context
        if sums is None or self._sum_x_D is None:
            raise ValueError("no context numbers to take standard errors over")
        tokens_C = sums.of("tokens")
        found = {metric: ratio_stderr(sums.of(name), tokens_C) for metric, name in _MEANS.items()}
        found["explained_variance"] = ratio_stderr(sums.of("error_squared"), self._variance_C())
        found["l2_ratio"] = ratio_stderr(sums.of("ratio"), sums.of("nonzero"))
        found["relative_reconstruction_bias"] = ratio_stderr(sums.of("recon_squared"), sums.of("dot"))
        return {f"{metric}_stderr": value for metric, value in found.items()}

    def silent_fraction(self) -> float:
        """Return the share of latents that fired on no token added with a context number."""
        return float("nan") if self._fired_F is None else 1 - float(self._fired_F.double().mean())


def _explained(error_squared: float, x_squared: float, sum_x_D: Tensor, tokens: int) -> float:
    """Return the share of the variance that is explained; NaN where all activations are the same."""
    variance = x_squared - float(sum_x_D.square().sum()) / tokens
    return 1 - error_squared / variance if variance > _ROUNDING * x_squared else float("nan")


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
        return _explained(self._error_squared, self._x_squared, self._sum_x_D, self._tokens)

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
