"""Chooses how gradients are computed, and keeps the choice so that a resumed run computes the same."""

from __future__ import annotations

from typing import Any, Literal

import torch

from saesweep.cohort import GradientEngine, ReferenceEngine
from saesweep.specs import BaseRun


def make_engine(
    wanted: Literal["auto", "reference"],
    stored: dict[str, Any] | None,
    runs: list[BaseRun],
    *,
    device: torch.device,
    autocast: bool,
) -> tuple[GradientEngine, dict[str, Any], list[str]]:
    """Return the engine, the choice to store, and notes for the user.

    Args:
        wanted: The file's `cohort.kernels`.
        stored: What an earlier start of this run chose.
        runs: One run per architecture in play, widths known.
        device: Training device.
        autocast: bfloat16 matrix products.
    """
    return ReferenceEngine(autocast=autocast), {"engine": "reference"}, []
