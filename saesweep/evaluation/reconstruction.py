"""How well an exported SAE reconstructs activations, and how sparsely: streaming sums in float64.

Definitions: docs/metrics.md. Shape suffixes: N tokens, D = d_in, F = d_sae.
"""

from __future__ import annotations

from torch import Tensor


class ReconstructionMetrics:
    """Accumulates over batches of any size; every token weighs the same."""

    def __init__(self) -> None:
        self._n = 0
        self._sum_x_D: Tensor | None = None
        self._sums: dict[str, float] = {}

    def _add(self, name: str, value: Tensor) -> None:
        self._sums[name] = self._sums.get(name, 0.0) + float(value)

    def update(self, x_ND: Tensor, recon_ND: Tensor, acts_NF: Tensor) -> None:
        """Add a batch of activations [N, D], their reconstructions and the SAE's latents [N, F]."""
        x = x_ND.double()
        recon = recon_ND.double()
        error = x - recon
        x_norm = x.norm(dim=-1)
        recon_norm = recon.norm(dim=-1)
        self._n += x.shape[0]
        total = x.sum(0)
        self._sum_x_D = total if self._sum_x_D is None else self._sum_x_D + total
        self._add("x_squared", x.square().sum())
        self._add("error_squared", error.square().sum())
        self._add("recon_squared", recon.square().sum())
        dot = (x * recon).sum(-1)
        self._add("dot", dot.sum())
        self._add("cosine", (dot / (x_norm * recon_norm).clamp_min(1e-12)).sum())
        is_nonzero = x_norm > 0  # a zero activation has no norm to compare with
        self._add("ratio", (recon_norm[is_nonzero] / x_norm[is_nonzero]).sum())
        self._add("nonzero", is_nonzero.sum())
        self._add("active", (acts_NF != 0).sum())
        self._add("l1", acts_NF.double().abs().sum())

    def compute(self) -> dict[str, float]:
        """Return mse, explained_variance, l0, l1, cosine_similarity, l2_ratio and relative_reconstruction_bias.

        Raises:
            ValueError: No batch was added.
        """
        if self._sum_x_D is None:
            raise ValueError("no activations to measure on")
        n, s = self._n, self._sums
        variance = s["x_squared"] / n - float((self._sum_x_D / n).square().sum())
        mse = s["error_squared"] / n
        if variance > 0:
            explained = 1 - mse / variance
        else:
            explained = 1.0 if mse == 0 else float("-inf")
        return {
            "mse": mse,
            "explained_variance": explained,
            "l0": s["active"] / n,
            "l1": s["l1"] / n,
            "cosine_similarity": s["cosine"] / n,
            "l2_ratio": s["ratio"] / s["nonzero"] if s["nonzero"] else float("nan"),
            "relative_reconstruction_bias": s["recon_squared"] / s["dot"] if s["dot"] else float("nan"),
        }
