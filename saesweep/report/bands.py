"""Density bands that fit the tokens that were counted, the ones worth reading first."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

JUDGED_ON = 10
"""Tokens that a latent must fire on before its density says anything."""
_INTERPRETABLE = 0.01
"""Latents that fire on more of the tokens than this are seldom about one thing."""


@dataclass(frozen=True)
class Band:
    """Latents that fire about as often."""

    name: str
    low: float
    """Share of the tokens, included."""
    high: float
    """Share of the tokens, left out."""
    n_latents: int


def bands_of(densities: Sequence[float], n_tokens: int) -> list[Band]:
    """Return the bands that hold latents, interpretable ones first, then denser ones, then those that fire too seldom.

    Args:
        densities: Share of the tokens on which each latent fires.
        n_tokens: Tokens that were counted; below ten of them a latent is too rare to be judged.
    """
    floor = min(1.0, JUDGED_ON / max(1, n_tokens))
    edges = [floor, *(edge for edge in (1e-5, 1e-4, 1e-3, 1e-2, 1e-1) if edge > 1.5 * floor), float("inf")]
    ranges = list(itertools.pairwise(edges))
    ordered = [pair for pair in reversed(ranges) if pair[1] <= _INTERPRETABLE]
    ordered += [pair for pair in ranges if pair[1] > _INTERPRETABLE]
    named = [
        (f"fires on {_share(low)} to {_share(high)}" if high <= 1 else f"fires on more than {_share(low)}", low, high)
        for low, high in ordered
    ]
    named += [(f"fires on fewer than {JUDGED_ON} of {n_tokens:,} tokens", 1e-300, floor), ("never fires", 0.0, 1e-300)]
    found = []
    for name, low, high in named:
        count = sum(low <= density < high for density in densities)
        if count:
            found.append(Band(name, low, high, count))
    return found


def _share(value: float) -> str:
    return f"{100 * value:.2g}%"


def band_index(bands: Sequence[Band], density: float) -> int:
    """Return the band of a latent."""
    return next(i for i, band in enumerate(bands) if band.low <= density < band.high)
