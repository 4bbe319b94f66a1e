"""Names on Weights & Biases: SAELens' for metrics, and for a trial what it is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_SAELENS = {"cosine_similarity": "cossim"}
"""Held-out metrics that SAELens' evaluation calls otherwise; all others have our own name."""


def evaluation_names(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return held-out metrics as `metrics/<name>`, in SAELens' names where it has the metric."""
    return {f"metrics/{_SAELENS.get(name, name)}": value for name, value in metrics.items()}


def trial_name(architecture: str, sparsity: str, params: Mapping[str, Any]) -> str:
    """Return what a trial is, such as `topk-k21-lr0.0025`.

    Args:
        architecture: Its architecture.
        sparsity: Its sparsity setting as the leaderboard says it.
        params: The searched parameters; those that the first two do not tell are added.
    """
    said = sparsity.replace("steered to ", "").replace("λ", "lambda").split()
    parts = [architecture, *(["".join(said[:2]), *said[2:]] if said else [])]
    for path, value in params.items():
        name = path.rpartition(".")[2]
        if path == "sae.architecture" or name in ("k", "target_l0") or name.endswith(_SPARSITY):
            continue
        text = f"{value:.3g}" if isinstance(value, float) else str(value)
        parts.append(f"{name}{text}")
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", "-".join(parts))


_SPARSITY = ("l0_coefficient", "l1_coefficient")
