"""Which trials are recorded of a source: full runs, steered runs, and complete short runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

ARCHITECTURES = ("topk", "batchtopk", "standard", "gated", "jumprelu")
FIELDS = {
    "topk": "k",
    "batchtopk": "k",
    "standard": "l1_coefficient",
    "gated": "l1_coefficient",
    "jumprelu": "l0_coefficient",
}
"""The sparsity setting of each."""
SHORT = 0.25
"""Length of the short runs, as a share of the full one; their schedules are scaled to it."""


@dataclass(frozen=True)
class Grid:
    """The settings to cross."""

    lrs: dict[str, tuple[float, ...]]
    """By architecture."""
    settings: dict[str, tuple[float, ...]]
    """By architecture: k, or the coefficient."""
    targets: tuple[float, ...]
    """L0 that penalised architectures are steered to, at the three lower learning rates."""
    seeds: tuple[int, ...] = (0, 1, 2)
    steered_seeds: tuple[int, ...] = (0, 1)
    short_seeds: tuple[int, ...] = (0, 1)


@dataclass(frozen=True)
class TrialPlan:
    """One trial to record."""

    architecture: str
    lr: float
    setting: float
    target_l0: float | None = None
    length: float = 1.0

    def params(self, total_tokens: int) -> dict[str, Any]:
        """Return what the trial sets, by dotted path.

        Args:
            total_tokens: Tokens of a full run.
        """
        found: dict[str, Any] = {
            "sae.architecture": self.architecture,
            f"sae.{FIELDS[self.architecture]}": self.setting,
            "lr": self.lr,
            "training_tokens": round(total_tokens * self.length),
        }
        if self.architecture == "jumprelu" and self.target_l0 is not None:
            found["sae.l0_warm_up_steps"] = "5%"  # the preset's takes the whole run, which leaves no time to steer
        return found


def trials(grid: Grid, seed: int) -> Iterator[TrialPlan]:
    """Yield the trials of one seed, short runs among them."""
    for architecture in ARCHITECTURES:
        lengths = (1.0, SHORT) if seed in grid.short_seeds else (1.0,)
        for length in lengths:
            for lr in grid.lrs[architecture]:
                for setting in grid.settings[architecture]:
                    yield TrialPlan(architecture, lr, setting, length=length)
        if seed in grid.steered_seeds and FIELDS[architecture] != "k":
            settings = grid.settings[architecture]
            start = (settings[0] * settings[-1]) ** 0.5  # mid-range: what steering can know before the run
            for lr in grid.lrs[architecture][:3]:
                for target in grid.targets:
                    yield TrialPlan(architecture, lr, float(f"{start:.3g}"), target_l0=target)
