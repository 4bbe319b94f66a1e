"""The exported threshold of BatchTopK-type SAEs: the quantile of recent training batches that gives mean L0 = k.

SAELens exports a running average of the smallest kept activation. It averages a moving target, so that a run of a few
hundred steps exports another SAE than the one it trained (L0 95 instead of 16 in a measured run).
"""

# Shape suffix legend:  B = tokens in a batch, F = d_sae

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

_CANDIDATES_PER_SELECTED = 4
# Rows of a batch from which the bound of its candidates is guessed: one in so many.
_SAMPLE_EVERY = 16
# Below this size a batch is kept whole: a sample of it says too little.
_MIN_SAMPLED_ELEMENTS = 2**18


def calibrate_threshold(pre_act_batches: Iterable[Tensor], k: float) -> float:
    """Return the threshold t at which `count(h > t)` over all rows is k per row.

    It lies midway between the smallest activation kept and the largest one dropped, so that rounding in the folded weights
    moves neither across. Activations tied at the boundary are all dropped (mean L0 is then just below k). Where fewer than
    k per row are positive, every positive activation is kept: the threshold is 0.

    Memory: about 4 k values per row are kept of each batch, or the whole batch where it is small.

    Args:
        pre_act_batches: Non-negative activations [B, F], from `Architecture.pre_acts_for_threshold`, on any device.
        k: Wanted mean number of active latents per row.

    Returns:
        The threshold, in the units of the batches.

    Raises:
        ValueError: k is not positive, there are no rows, or the batches differ so much that the kept candidates of one
            do not reach down to the threshold.
    """
    if k <= 0:
        raise ValueError(f"k must be positive, got {k}")
    rows = 0
    candidates: list[Tensor] = []
    # No activation left out of the candidates is larger: the answer is exact if it is not below this.
    highest_left_out = 0.0
    for h_BF in pre_act_batches:
        if h_BF.ndim != 2:
            raise ValueError(f"pre-activations must be [tokens, d_sae], got {list(h_BF.shape)}")
        rows += h_BF.shape[0]
        bound = _bound(h_BF, k)
        highest_left_out = max(highest_left_out, bound)
        candidates.append(h_BF[h_BF > bound])
    if rows == 0:
        raise ValueError("no rows to calibrate the threshold on")
    threshold = _upper_quantile(torch.cat(candidates), int(k * rows))
    if threshold < highest_left_out:
        raise ValueError(
            f"the threshold {threshold:g} lies below {highest_left_out:g}, above which the candidates of one batch lie: "
            "the batches are too different to be recent batches of one shuffled stream"
        )
    return threshold


def _bound(h_BF: Tensor, k: float) -> float:
    """Return a value that about 4 k activations of each row exceed; 0 where that would be nearly all of the positive ones."""
    if h_BF.numel() < _MIN_SAMPLED_ELEMENTS:
        return 0.0
    sample = h_BF[::_SAMPLE_EVERY]
    rank = int(_CANDIDATES_PER_SELECTED * k * sample.shape[0]) + 1
    return float(sample.flatten().topk(rank, sorted=False).values.min()) if rank <= sample.numel() else 0.0


def _upper_quantile(values: Tensor, n_kept: int) -> float:
    """Return the smallest threshold that at most `n_kept` of the positive `values` exceed."""
    if values.numel() <= n_kept:
        return 0.0
    dropped = values.topk(n_kept + 1, sorted=False).values.min()
    kept = values[values > dropped]
    if kept.numel() == 0:  # more than n_kept values share the maximum
        return float(dropped)
    smallest_kept = kept.min()
    middle = (float(dropped) + float(smallest_kept)) / 2
    # Between two adjacent floats there is no room: the larger one must stay above the threshold in float32 too.
    return middle if float(torch.tensor(middle, dtype=torch.float32)) < float(smallest_kept) else float(dropped)
