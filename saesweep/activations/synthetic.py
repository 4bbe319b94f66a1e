"""Activations with known true features in superposition, without a language model: for tests and recovery scores."""

# Shape suffix legend: B = rows per batch, F = true features, D = width

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from saesweep.activations.feature_tree import FeatureTree
from saesweep.activations.held_out import HeldOut
from saesweep.activations.keys import key_seed
from saesweep.activations.stream import BatchStream
from saesweep.specs.synthetic import CorrelationSpec, FiringProbabilitySpec, MagnitudeSpec, SyntheticSpec

_MIN_OWN_VARIANCE = 0.01
"""Of a correlated feature's Gaussian: no more than the rest of its variance comes from the shared factors."""


class SyntheticFeatures:
    """Unit feature directions and how often each fires; x is the sum of the active features times their magnitudes.

    Args:
        d_in: Width of the activations.
        seed: Draws the directions, the correlations and the hierarchy.
        spec: How features fire; the defaults when left out.

    Attributes:
        features_FD: The true features, one unit vector a row, float32.
        probabilities_F: How often each fires, before a hierarchy takes some away.
    """

    def __init__(self, d_in: int, seed: int, spec: SyntheticSpec | None = None) -> None:
        spec = spec if spec is not None else SyntheticSpec()
        n_features = spec.features_of(d_in)
        generator = torch.Generator().manual_seed(key_seed(seed, "synthetic features"))
        self.features_FD = torch.nn.functional.normalize(torch.randn(n_features, d_in, generator=generator), dim=1)
        self.probabilities_F = _zipf(n_features, spec.firing_probability)
        self.d_in = d_in
        self._mean_F = _magnitudes(spec.mean_firing_magnitudes, n_features)
        self._std_F = _magnitudes(spec.std_firing_magnitudes, n_features)
        self._tree: FeatureTree | None = None
        self._drawn_F = self.probabilities_F
        if spec.hierarchy is not None:
            self._tree = FeatureTree(spec.hierarchy, n_features, key_seed(seed, "synthetic hierarchy"))
            self._drawn_F = self._tree.compensated(self.probabilities_F)
        self._factors_FR: Tensor | None = None
        if spec.correlation is not None:
            self._factors_FR = _factors(spec.correlation, n_features, key_seed(seed, "synthetic correlation"))

    def sample(self, n_rows: int, seed: int) -> Tensor:
        """Return [B,D] activations, float32; the same seed gives the same rows."""
        return self.sample_acts(n_rows, seed) @ self.features_FD

    def sample_acts(self, n_rows: int, seed: int) -> Tensor:
        """Return the magnitudes [B,F] of the features that the rows of `sample` are sums of; 0 where one is silent."""
        generator = torch.Generator().manual_seed(seed)
        shape = (n_rows, len(self.features_FD))
        fires_BF = self._fires(shape, generator)
        magnitudes_BF = self._mean_F + self._std_F * torch.randn(shape, generator=generator)
        acts_BF = fires_BF * magnitudes_BF.clamp_min(0)
        return acts_BF if self._tree is None else self._tree.apply_(acts_BF, self._mean_F, generator)

    def _fires(self, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
        if self._factors_FR is None:
            return torch.rand(shape, generator=generator) < self._drawn_F
        # A Gaussian copula: correlated normals, each above its quantile as often as its feature is to fire.
        own_F = (1 - self._factors_FR.square().sum(1)).sqrt()
        shared_BR = torch.randn((shape[0], self._factors_FR.shape[1]), generator=generator)
        normal_BF = shared_BR @ self._factors_FR.T + own_F * torch.randn(shape, generator=generator)
        quantile_F = torch.special.ndtri(1 - self._drawn_F.double()).float()
        return torch.gt(normal_BF, quantile_F)


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
        self.true_features_FD = features.features_FD
        self._n_tokens = n_tokens
        self._features = features
        self._part = part
        self._batch_tokens = batch_tokens
        self._seed = seed
        self._device = device

    @property
    def mask_NT(self) -> None:
        """There are no positions."""
        return None

    @property
    def n_tokens(self) -> int:
        """Rows of activations."""
        return self._n_tokens

    def batches(self, hook: str, max_tokens: int | None = None) -> Iterator[Tensor]:
        """Yield the rows [B,D], the same for every hook, float32."""
        for rows_BD, _ in self._draw(max_tokens):
            yield rows_BD

    def labelled_batches(self, hook: str, max_tokens: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the rows [B,D] of `batches`, and the activations [B,F] of the true features behind them."""
        yield from self._draw(max_tokens)

    def _draw(self, max_tokens: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        left = self.n_tokens if max_tokens is None else min(max_tokens, self.n_tokens)
        number = 0
        while left:
            acts_BF = self._features.sample_acts(self._batch_tokens, key_seed(self._seed, self._part, number))
            rows_BD = (acts_BF @ self._features.features_FD)[:left]
            yield rows_BD.to(self._device), acts_BF[:left].to(self._device)
            left -= len(rows_BD)
            number += 1


def _zipf(n_features: int, spec: FiringProbabilitySpec) -> Tensor:
    """Firing probabilities proportional to rank ** -exponent, with `mean_active` active features on average."""
    weights_F = 1 / torch.arange(1, n_features + 1, dtype=torch.float64) ** spec.exponent
    scale = spec.mean_active / weights_F.sum()
    for _ in range(50):  # what the cap takes from the most frequent features goes to the others
        scale = scale * spec.mean_active / (weights_F * scale).clamp_max(spec.max_prob).sum()
    return (weights_F * scale).clamp_max(spec.max_prob).float()


def _magnitudes(spec: float | MagnitudeSpec, n_features: int) -> Tensor:
    """Return one value per feature, float32."""
    if not isinstance(spec, MagnitudeSpec):
        return torch.full((n_features,), spec)
    if spec.generator_name == "linear":
        return torch.linspace(spec.start, spec.end, n_features)
    return spec.start * (spec.end / spec.start) ** torch.linspace(0, 1, n_features)


def _factors(spec: CorrelationSpec, n_features: int, seed: int) -> Tensor:
    """Return each feature's loadings [F,R] on the shared factors; together they give it at most 99% of its variance."""
    generator = torch.Generator().manual_seed(seed)
    factors_FR = spec.correlation_scale * torch.randn(n_features, spec.rank, generator=generator)
    shared_F1 = factors_FR.square().sum(1, keepdim=True)
    return factors_FR * ((1 - _MIN_OWN_VARIANCE) / shared_F1).clamp_max(1).sqrt()
