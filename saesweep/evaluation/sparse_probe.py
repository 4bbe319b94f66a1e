"""One k-sparse probe: the k latents that differ most between two classes, and a logistic regression on them.

After Gurnee et al. (2023), "Finding neurons in a haystack", arXiv 2305.01610, and Kantamneni et al. (2025), "Are sparse
autoencoders useful?", arXiv 2502.16681, whose code (sae-probes 0.4) this agrees with in the choice of latents and of C.

Shape suffixes: N = texts, F = d_sae, K = columns of a probe: k latents, or the width of activations.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

STRENGTHS = np.logspace(5, -5, 10)
"""Inverse strengths C of the L2 penalty to choose from."""
_FOLDS, _HELD_OUT, _MAX_HELD_OUT, _FEW = 6, 0.2, 100, 128
"""Fewer texts than the last are cross-validated in folds; of more, a share is held out once."""
_SEED = 42


@dataclass(frozen=True)
class ProbeScore:
    """How well a probe tells texts apart that it was not trained on."""

    accuracy: float
    auc: float


def ranked_latents(acts_NF: csr_matrix, is_positive_N: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the latents by how much their means differ between the classes, largest first.

    Each latent counts in units of its own mean where it is active, so that a large scale is no advantage.

    Args:
        acts_NF: Latents of the texts to train on.
        is_positive_N: Their class.
    """
    sums_F = np.asarray(abs(acts_NF).sum(axis=0), dtype=np.float64).ravel()
    scale_F = sums_F / (acts_NF.getnnz(axis=0) + 1e-6) + 1e-6
    means = [
        np.asarray(acts_NF[own_N].mean(axis=0), dtype=np.float64).ravel() for own_N in (is_positive_N, ~is_positive_N)
    ]
    return np.argsort(-np.abs(means[0] - means[1]) / scale_F, kind="stable")


def probe_score(
    train_NK: NDArray[np.float32],
    train_labels_N: NDArray[np.bool_],
    test_NK: NDArray[np.float32],
    test_labels_N: NDArray[np.bool_],
) -> ProbeScore:
    """Return how well an L2 logistic regression does on the test texts; its C is the best on texts held out of training.

    Args:
        train_NK: Columns to train on; any 20% of the rows at the end hold both classes.
        train_labels_N: Their class.
        test_NK: Columns to test on.
        test_labels_N: Their class.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.metrics import roc_auc_score

    with warnings.catch_warnings():
        # A weak penalty on columns of large scale takes more steps than are given to it, and is then chosen only if it is best.
        warnings.simplefilter("ignore", ConvergenceWarning)
        splits = _splits(train_NK, train_labels_N)
        mean_auc = [
            np.mean(
                [
                    roc_auc_score(
                        train_labels_N[held_out],
                        _fitted(strength, train_NK[kept], train_labels_N[kept]).decision_function(train_NK[held_out]),
                    )
                    for kept, held_out in splits
                ]
            )
            for strength in STRENGTHS
        ]
        model = _fitted(float(STRENGTHS[int(np.argmax(mean_auc))]), train_NK, train_labels_N)
    return ProbeScore(
        accuracy=float((model.predict(test_NK) == test_labels_N).mean()),
        auc=float(roc_auc_score(test_labels_N, model.decision_function(test_NK))),
    )


def _splits(train_NK: NDArray[np.float32], labels_N: NDArray[np.bool_]) -> list[tuple[Any, Any]]:
    """Return (rows to train on, rows held out), once or several times."""
    from sklearn.model_selection import StratifiedKFold

    count = len(labels_N)
    if count < _FEW:
        return list(StratifiedKFold(_FOLDS, shuffle=True, random_state=_SEED).split(train_NK, labels_N))
    kept = count - min(int(_HELD_OUT * count), _MAX_HELD_OUT)
    return [(slice(0, kept), slice(kept, count))]


def _fitted(strength: float, columns_NK: NDArray[np.float32], labels_N: NDArray[np.bool_]) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, max_iter=1000, random_state=_SEED).fit(columns_NK, labels_N)
