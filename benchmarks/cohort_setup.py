"""What every subject of `cohort.py` starts from: sizes, activations, weights. Imports torch alone: peers run it too.

Shape suffixes: B = tokens of a batch, D = d_in, F = d_sae.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

BATCH_TOKENS = 4096
# A few batches, served in turn: enough that no cache holds them all at the larger sizes.
N_BATCHES = 4
# Share of active pairs of the penalised architectures.
DENSITY = {"sparse": 0.012, "dense": 0.35}
LR = 1e-8
"""So small that the phase (density, dead latents) stays as it was set up; the work of a step does not depend on it."""
L1, L0 = 0.1, 0.01


@dataclass(frozen=True)
class Size:
    """Shape of the SAEs, active latents, and SAEs in the cohort."""

    d_in: int
    d_sae: int
    k: int
    slots: int


SIZES = {
    "S": Size(64, 1024, 16, 8),
    "M": Size(512, 8192, 32, 8),
    "L": Size(768, 12288, 32, 4),
    "XL": Size(2304, 16384, 64, 4),  # for GPUs: layer 12 of Gemma-2-2B
    "wide": Size(2304, 65536, 64, 1),
    "tiny": Size(16, 256, 4, 2),  # shows that something runs
}
COUNTED = ("topk", "batchtopk", "matryoshka_batchtopk", "topk_transcoder", "topk_crosscoder")
ARCHITECTURES = (*COUNTED, "standard", "jumprelu", "gated")
LAYERS = 4
"""Hooks of a crosscoder, which share `d_in`."""


@dataclass(frozen=True)
class Setup:
    """One case of the benchmark, as it is handed to the worker processes."""

    size: str
    architecture: str
    phase: str
    dead: float
    slots: int
    device: str = "cpu"
    autocast: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the fields."""
        return asdict(self)

    @property
    def d_in(self) -> int:
        """Width of the activations."""
        return SIZES[self.size].d_in

    @property
    def d_sae(self) -> int:
        """Number of latents."""
        return SIZES[self.size].d_sae

    @property
    def k(self) -> int:
        """Active latents per token of the topk family."""
        return SIZES[self.size].k

    @property
    def is_transcoder(self) -> bool:
        """Whether what is reconstructed is not what is read."""
        return self.architecture.endswith("_transcoder")

    @property
    def is_crosscoder(self) -> bool:
        """Whether several hooks are read together."""
        return self.architecture.endswith("_crosscoder")

    @property
    def sae_fields(self) -> dict[str, Any]:
        """The `sae` block in SAELens' names."""
        fields: dict[str, Any] = {"d_in": self.d_in, "d_sae": self.d_sae}
        if self.is_transcoder:
            fields["d_out"] = self.d_in
        if self.is_crosscoder:
            fields["n_layers"] = LAYERS
        if self.architecture in COUNTED:
            fields["k"] = self.k
        if self.architecture == "matryoshka_batchtopk":
            fields["matryoshka_widths"] = [self.d_sae // 16, self.d_sae // 4, self.d_sae]
        if self.architecture in ("standard", "gated"):
            fields["l1_coefficient"] = L1
        if self.architecture == "jumprelu":
            fields["l0_coefficient"] = L0
        return fields

    def batches(self) -> list[Tensor]:
        """Activations [B, D]: sums of a varying number of sparse features in superposition, and noise."""
        generator = torch.Generator().manual_seed(0)
        features = torch.nn.functional.normalize(torch.randn(4 * self.d_in, self.d_in, generator=generator), dim=1)
        found = []
        for _ in range(N_BATCHES):
            rate = 8 / features.shape[0] * (0.5 + torch.rand(BATCH_TOKENS, 1, generator=generator))
            firing = (torch.rand(BATCH_TOKENS, features.shape[0], generator=generator) < rate).float()
            strength = firing * (1 + torch.rand(firing.shape, generator=generator))
            noise = 0.1 * torch.randn(BATCH_TOKENS, self.d_in, generator=generator)
            found.append(strength @ features + noise)
        return self._scaled(found)

    def targets(self, batches: list[Tensor]) -> list[Tensor]:
        """What a transcoder reconstructs of the batches [B, D], of the same width: a function that no linear map gives."""
        generator = torch.Generator().manual_seed(2)
        hidden, out = (torch.randn(self.d_in, self.d_in, generator=generator) for _ in range(2))
        return self._scaled([(x_BD @ hidden).relu() @ out for x_BD in batches])

    def _scaled(self, batches: list[Tensor]) -> list[Tensor]:
        """At the scale that `expected_average_only_in` gives, for which SAELens' default bandwidth and threshold are meant."""
        mean_norm = torch.cat(batches).norm(dim=1).mean()
        return [x_BD * (self.d_in**0.5 / mean_norm) for x_BD in batches]

    def dead_F(self) -> Tensor:
        """Which latents are dead: evenly spread."""
        dead_F = torch.zeros(self.d_sae, dtype=torch.bool)
        if self.dead > 0:
            dead_F[:: round(1 / self.dead)] = True
        return dead_F

    def weights(self, x_BD: Tensor) -> dict[str, Tensor]:
        """On the activations' device: `W_enc` [D, F], `W_dec` [F, D], and `bias` [F] at which every live latent fires as often as the phase says."""
        generator = torch.Generator().manual_seed(1)
        W_dec_FD = torch.randn(self.d_sae, self.d_in, generator=generator).to(x_BD.device)
        W_dec_FD *= 0.1 / W_dec_FD.norm(dim=1, keepdim=True)
        hidden_BF = x_BD[:1024] @ W_dec_FD.t()
        bias_F = x_BD.new_zeros(self.d_sae)
        if self.architecture not in COUNTED:
            n_active = max(round(DENSITY[self.phase] * hidden_BF.shape[0]), 1)
            bias_F = -hidden_BF.topk(n_active + 1, dim=0).values[-1]
        dead_F = self.dead_F().to(x_BD.device)
        bias_F[dead_F] = -3 * hidden_BF.abs().max()
        return {"W_enc": W_dec_FD.t().clone(), "W_dec": W_dec_FD, "bias": bias_F}
