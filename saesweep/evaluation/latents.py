"""What is measured of latents: how often each fires on held-out tokens, and how well they are the true features of synthetic activations.

What is published and shown as density is counted here: the window of a training run counts another SAE, its early form, which may be
dense, before thresholds are calibrated. `mcc`, `precision`, `recall`, `f1` and `uniqueness` are SAELens' (`sae_lens.synthetic.evals`);
definitions: docs/metrics.md.

Shape suffixes: N tokens, D = d_in, F = d_sae, G = true features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from saesweep.events import DENSITY_EDGES


@dataclass(frozen=True)
class Densities:
    """The share of held-out tokens on which each latent fires; the shares sum to the L0 on the same tokens."""

    share_F: Tensor
    """float64, on the CPU."""
    part: Literal["select", "test"]
    tokens: int
    """A latent that fires on fewer than one token in so many may have fired on none."""

    def histogram(self) -> tuple[int, ...]:
        """Return how many latents lie between neighbours of `DENSITY_EDGES`, by log10 of their share."""
        edges = torch.tensor(DENSITY_EDGES, dtype=torch.float64)
        log10_F = self.share_F.log10().clamp(DENSITY_EDGES[0], DENSITY_EDGES[-1])
        bars_F = (torch.bucketize(log10_F, edges, right=True) - 1).clamp(0, len(edges) - 2)
        return tuple(torch.bincount(bars_F, minlength=len(edges) - 1).tolist())

    def described(self) -> dict[str, Any]:
        """Return what they were counted on, for `provenance.json`."""
        return {"part": self.part, "tokens": self.tokens}


class FiringCounter:
    """Counts one SAE's active latents over batches of any size."""

    def __init__(self) -> None:
        self._counts_F: Tensor | None = None
        self._tokens = 0

    def update(self, acts_NF: Tensor) -> None:
        """Add a batch of latents; one is active where it is not 0, as for L0."""
        fired_F = (acts_NF != 0).sum(0)
        self._counts_F = fired_F if self._counts_F is None else self._counts_F + fired_F
        self._tokens += acts_NF.shape[0]

    def densities(self, part: Literal["select", "test"]) -> Densities:
        """Return the shares.

        Args:
            part: The held-out part that was counted.

        Raises:
            ValueError: No batch was added.
        """
        if self._counts_F is None:
            raise ValueError("no tokens to count on")
        return Densities(self._counts_F.cpu().to(torch.float64) / self._tokens, part, self._tokens)


class RecoveryMetrics:
    """Accumulates over batches of any size; every token weighs the same.

    Args:
        decoder_FD: The SAE's decoder rows.
        true_GD: The true features.
    """

    def __init__(self, decoder_FD: Tensor, true_GD: Tensor) -> None:
        self._cosine_FG = _unit(decoder_FD.float()) @ _unit(true_GD.to(decoder_FD.device).float()).T
        self._match_F = self._cosine_FG.abs().argmax(1)
        """The true feature that each latent stands for: the nearest one, in either direction."""
        self._both_F, self._latent_F, self._feature_F = (
            torch.zeros(len(decoder_FD), dtype=torch.int64, device=decoder_FD.device) for _ in range(3)
        )

    def update(self, acts_NF: Tensor, true_acts_NG: Tensor) -> None:
        """Add a batch of the SAE's latents and of the true features' activations."""
        fires_NF = acts_NF != 0
        wanted_NF = true_acts_NG[:, self._match_F] > 0
        self._both_F += (fires_NF & wanted_NF).sum(0)
        self._latent_F += fires_NF.sum(0)
        self._feature_F += wanted_NF.sum(0)

    def compute(self) -> dict[str, float]:
        """Return mmcs, mcc, precision, recall, f1 and uniqueness."""
        both_F = self._both_F.double()
        precision_F = both_F / self._latent_F.clamp_min(1)  # 0 for a latent that never fires
        recall_F = both_F / self._feature_F.clamp_min(1)
        f1_F = 2 * precision_F * recall_F / (precision_F + recall_F).clamp_min(1e-300)
        return {
            "mmcs": float(self._cosine_FG.amax(0).double().mean()),
            "mcc": _mean_matched(self._cosine_FG.abs()),
            "precision": float(precision_F.mean()),
            "recall": float(recall_F.mean()),
            "f1": float(f1_F.mean()),
            "uniqueness": len(set(self._match_F.tolist())) / len(self._match_F),
        }


def _unit(rows: Tensor) -> Tensor:
    return torch.nn.functional.normalize(rows, dim=-1)


def _mean_matched(similarity_FG: Tensor) -> float:
    """Return the mean similarity of the best one-to-one matching of rows and columns."""
    from scipy.optimize import linear_sum_assignment

    matrix = similarity_FG.double().cpu().numpy()
    return float(matrix[linear_sum_assignment(matrix, maximize=True)].mean())
