"""SAELens' metric names on Weights & Biases."""

from __future__ import annotations

from collections.abc import Mapping

_SAELENS = {"cosine_similarity": "cossim"}
"""Held-out metrics that SAELens' evaluation calls otherwise; all others have our own name."""


def evaluation_names(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return held-out metrics as `metrics/<name>`, in SAELens' names where it has the metric."""
    return {f"metrics/{_SAELENS.get(name, name)}": value for name, value in metrics.items()}
