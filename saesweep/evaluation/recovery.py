"""How well an SAE's latents are the true features of synthetic activations. Definitions: docs/metrics.md.

`mcc`, `precision`, `recall`, `f1` and `uniqueness` are SAELens' (`sae_lens.synthetic.evals`).
"""

# Shape suffixes: N tokens, D = d_in, F = d_sae, G = true features

from __future__ import annotations

import torch
from torch import Tensor


class RecoveryMetrics:
    """Accumulates over batches of any size; every token weighs the same.

    Args:
        decoder_FD: The SAE's decoder rows.
        true_GD: The true features.
    """

    def __init__(self, decoder_FD: Tensor, true_GD: Tensor) -> None:
        self._cosine_FG = _unit(decoder_FD.float()) @ _unit(true_GD.to(decoder_FD.device).float()).T
        self._match_F = self._cosine_FG.abs().argmax(1)
        """The true feature that each latent stands for: the nearest one, in either direction."""
        self._both_F, self._latent_F, self._feature_F = (
            torch.zeros(len(decoder_FD), dtype=torch.int64, device=decoder_FD.device) for _ in range(3)
        )

    def update(self, acts_NF: Tensor, true_acts_NG: Tensor) -> None:
        """Add a batch of the SAE's latents and of the true features' activations."""
        fires_NF = acts_NF != 0
        wanted_NF = true_acts_NG[:, self._match_F] > 0
        self._both_F += (fires_NF & wanted_NF).sum(0)
        self._latent_F += fires_NF.sum(0)
        self._feature_F += wanted_NF.sum(0)

    def compute(self) -> dict[str, float]:
        """Return mmcs, mcc, precision, recall, f1 and uniqueness."""
        both_F = self._both_F.double()
        precision_F = both_F / self._latent_F.clamp_min(1)  # 0 for a latent that never fires
        recall_F = both_F / self._feature_F.clamp_min(1)
        f1_F = 2 * precision_F * recall_F / (precision_F + recall_F).clamp_min(1e-300)
        return {
            "mmcs": float(self._cosine_FG.amax(0).double().mean()),
            "mcc": _mean_matched(self._cosine_FG.abs()),
            "precision": float(precision_F.mean()),
            "recall": float(recall_F.mean()),
            "f1": float(f1_F.mean()),
            "uniqueness": len(set(self._match_F.tolist())) / len(self._match_F),
        }


def _unit(rows: Tensor) -> Tensor:
    return torch.nn.functional.normalize(rows, dim=-1)


def _mean_matched(similarity_FG: Tensor) -> float:
    """Return the mean similarity of the best one-to-one matching of rows and columns."""
    from scipy.optimize import linear_sum_assignment

    matrix = similarity_FG.double().cpu().numpy()
    return float(matrix[linear_sum_assignment(matrix, maximize=True)].mean())
