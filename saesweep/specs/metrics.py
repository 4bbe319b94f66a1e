"""Names of the metrics that an objective, a constraint or the leaderboard can use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Direction = Literal["minimize", "maximize"]

LOG_METRICS = ("l0", "mse", "l1", "delta_ce", "kl_div")
"""Metrics that span decades: distances, areas and regressions take their logarithm, where all values are above 0."""


@dataclass(frozen=True)
class Metric:
    """One number measured on held-out activations through the exported form of an SAE."""

    name: str
    better: Direction
    unit: str
    needs_lm_head: bool
    description: str
    needs_true_features: bool = False
    """Only `dataset_path: builtin:synthetic` knows the features behind its activations."""
    needs_next_token: bool = False
    """Compares predictions with the token that follows; the last position of a context has none."""


def _recovery(name: str, description: str) -> Metric:
    return Metric(name, "maximize", "share", False, description, needs_true_features=True)


METRICS: dict[str, Metric] = {
    m.name: m
    for m in (
        Metric(
            "mse",
            "minimize",
            "squared activation units",
            False,
            "squared error summed over dimensions, mean over tokens",
        ),
        Metric(
            "explained_variance",
            "maximize",
            "share",
            False,
            "1 - sum|x - x^|^2 / sum|x - mean x|^2 over all held-out tokens",
        ),
        Metric(
            "explained_variance_no_sinks",
            "maximize",
            "share",
            False,
            "explained variance over the tokens that are no attention sinks; the same where there are none",
        ),
        Metric("l0", "minimize", "latents per token", False, "mean number of active latents"),
        Metric("l1", "minimize", "activation units", False, "mean sum of latent activations"),
        Metric("cosine_similarity", "maximize", "-1 to 1", False, "mean cosine between activations and reconstruction"),
        Metric(
            "l2_ratio", "maximize", "ratio", False, "mean norm of the reconstruction over the norm of the activation"
        ),
        Metric("relative_reconstruction_bias", "maximize", "ratio", False, "E|x^|^2 / E[x.x^]; 1 is unbiased"),
        Metric("dead_fraction", "minimize", "share", False, "latents that never fired in the named token window"),
        Metric(
            "delta_ce",
            "minimize",
            "nats per token",
            True,
            "cross-entropy with the SAE spliced in, minus the model's own",
            needs_next_token=True,
        ),
        Metric(
            "ce_loss_score",
            "maximize",
            "share",
            True,
            "(CE_ablated - CE_sae) / (CE_ablated - CE_clean), zero ablation",
            needs_next_token=True,
        ),
        Metric(
            "ce_loss_with_sae",
            "minimize",
            "nats per token",
            True,
            "cross-entropy with the SAE spliced in",
            needs_next_token=True,
        ),
        Metric("kl_div", "minimize", "nats per token", True, "KL(clean || with SAE) of the next-token distribution"),
        Metric("kl_div_score", "maximize", "share", True, "(KL_ablated - KL_sae) / KL_ablated, zero ablation"),
        _recovery("mmcs", "mean over true features of the largest cosine with a decoder row"),
        _recovery("mcc", "mean absolute cosine of decoder rows and true features, matched one to one"),
        _recovery("precision", "how often its true feature is active where a latent is; mean over latents"),
        _recovery("recall", "how often a latent is active where its true feature is; mean over latents"),
        _recovery("f1", "harmonic mean of a latent's precision and recall; mean over latents"),
        _recovery("uniqueness", "true features that are some latent's own, over the number of latents"),
    )
}
