"""Activations with known true features in superposition, without a language model: for tests and recovery scores."""

# Shape suffix legend: B = rows per batch, F = true features, D = width

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from saesweep.activations.held_out import HeldOut
from saesweep.activations.keys import key_seed
from saesweep.activations.stream import BatchStream

DEFAULT_D_IN = 64
"""Width where `sae.d_in` is left out."""
FEATURES_PER_DIMENSION = 4
"""True features per dimension: superposition."""
MEAN_ACTIVE = 8.0
"""Features active per row on average."""
ZIPF_EXPONENT = 1.0
"""Feature i fires with a probability proportional to 1 / (i + 1) ** this."""
MOST_FREQUENT = 0.5
"""No feature fires more often."""
MAGNITUDE_MEAN, MAGNITUDE_STD = 1.0, 0.25
"""Strength of an active feature: normal, kept positive."""


class SyntheticFeatures:
    """Unit feature directions and how often each fires; x is the sum of the active features times their magnitudes.

    Attributes:
        features_FD: The true features, one unit vector a row, float32.
        probabilities_F: How often each fires.
    """

    def __init__(self, d_in: int, seed: int) -> None:
        n_features = FEATURES_PER_DIMENSION * d_in
        generator = torch.Generator().manual_seed(key_seed(seed, "synthetic features"))
        self.features_FD = torch.nn.functional.normalize(torch.randn(n_features, d_in, generator=generator), dim=1)
        self.probabilities_F = _zipf(n_features)
        self.d_in = d_in

    def sample(self, n_rows: int, seed: int) -> Tensor:
        """Return [B,D] activations, float32; the same seed gives the same rows."""
        generator = torch.Generator().manual_seed(seed)
        shape = (n_rows, len(self.features_FD))
        fires_BF = torch.rand(shape, generator=generator) < self.probabilities_F
        magnitudes_BF = MAGNITUDE_MEAN + MAGNITUDE_STD * torch.randn(shape, generator=generator)
        return (fires_BF * magnitudes_BF.clamp_min(0)) @ self.features_FD


class SyntheticStream(BatchStream):
    """Batch i is drawn from a key of (seed, i): nothing to shuffle and nothing to keep."""

    def __init__(
        self,
        *,
        features: SyntheticFeatures,
        hooks: Sequence[str],
        window_tokens: int,
        batch_tokens: int,
        seed: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.features = features
        self.d_in = dict.fromkeys(hooks, features.d_in)
        self.batches_served = 0
        self.tokens_served = 0
        self._window_batches = max(1, window_tokens // batch_tokens)
        self._batch_tokens = batch_tokens
        self._seed = seed
        self._dtype = dtype
        self._device = device

    @property
    def features_FD(self) -> Tensor:
        """The true features, one unit vector a row."""
        return self.features.features_FD

    @property
    def epoch(self) -> int:
        """Always 0: no row comes twice."""
        return 0

    def next_batch(self) -> dict[str, Tensor]:
        """Return the next batch, the same rows [B,D] for every hook."""
        batch = self._batch(self.batches_served)
        self.batches_served += 1
        self.tokens_served += self._batch_tokens
        return batch

    def first_window(self) -> Iterator[dict[str, Tensor]]:
        """Yield the batches that come next, without serving them."""
        for number in range(self.batches_served, self.batches_served + self._window_batches):
            yield self._batch(number)

    def state(self) -> dict[str, Any]:
        """Return the position between two batches."""
        return {"settings": [self._seed, self._batch_tokens], "batches_served": self.batches_served}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state()`.

        Raises:
            ValueError: The state belongs to a stream with another seed or batch size.
        """
        if state["settings"] != [self._seed, self._batch_tokens]:
            raise ValueError(
                f"the stream's state was saved with (seed, batch) {state['settings']}, "
                f"this stream has {[self._seed, self._batch_tokens]}"
            )
        self.batches_served = int(state["batches_served"])
        self.tokens_served = self.batches_served * self._batch_tokens

    def close(self) -> None:
        """Nothing is held."""

    def _batch(self, number: int) -> dict[str, Tensor]:
        rows_BD = self.features.sample(self._batch_tokens, key_seed(self._seed, "batch", number))
        return dict.fromkeys(self.d_in, rows_BD.to(device=self._device, dtype=self._dtype))


class SyntheticHeldOut(HeldOut):
    """A held-out part of generated rows, keyed by its name apart from the training batches."""

    def __init__(
        self,
        *,
        features: SyntheticFeatures,
        part: str,
        n_tokens: int,
        batch_tokens: int,
        seed: int,
        device: torch.device,
    ) -> None:
        self.tokens_NT = None
        self.mask_NT = None
        self.n_tokens = n_tokens
        self._features = features
        self._part = part
        self._batch_tokens = batch_tokens
        self._seed = seed
        self._device = device

    def batches(self, hook: str, max_tokens: int | None = None) -> Iterator[Tensor]:
        """Yield the rows [B,D], the same for every hook, float32."""
        left = self.n_tokens if max_tokens is None else min(max_tokens, self.n_tokens)
        number = 0
        while left:
            rows_BD = self._features.sample(self._batch_tokens, key_seed(self._seed, self._part, number))[:left]
            yield rows_BD.to(self._device)
            left -= len(rows_BD)
            number += 1


def _zipf(n_features: int) -> Tensor:
    """Firing probabilities proportional to rank ** -ZIPF_EXPONENT, with `MEAN_ACTIVE` active features on average."""
    weights_F = 1 / torch.arange(1, n_features + 1, dtype=torch.float64) ** ZIPF_EXPONENT
    scale = MEAN_ACTIVE / weights_F.sum()
    for _ in range(50):  # what the cap takes from the most frequent features goes to the others
        scale = scale * MEAN_ACTIVE / (weights_F * scale).clamp_max(MOST_FREQUENT).sum()
    return (weights_F * scale).clamp_max(MOST_FREQUENT).float()
