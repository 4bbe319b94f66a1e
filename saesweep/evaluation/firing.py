"""How often each latent of an exported SAE fires on held-out tokens: what is published and shown as its density.

The window of a training run counts another SAE: its early form, which may be dense, before thresholds are calibrated.
Shape suffixes: N tokens, F = d_sae.
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
