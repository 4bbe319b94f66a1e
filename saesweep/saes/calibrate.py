"""The exported threshold of BatchTopK-type SAEs: the quantile of recent training batches that gives mean L0 = k.

SAELens exports a running average of the smallest kept activation. It averages a moving target, so that a run of a few
hundred steps exports another SAE than the one it trained (L0 95 instead of 16 in a measured run).
"""

# Shape suffix legend:  B = tokens in a batch, F = d_sae

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

_CANDIDATES_PER_SELECTED = 4
# Rows of a batch from which the bound of its candidates is guessed: one in so many.
_SAMPLE_EVERY = 16
# Below this size a batch is kept whole: a sample of it says too little.
_MIN_SAMPLED_ELEMENTS = 2**18


def calibrate_threshold(pre_act_batches: Callable[[], Iterable[Tensor]], k: float) -> float:
    """Return the threshold t at which `count(h > t)` over all rows is k per row.

    It lies midway between the smallest activation kept and the largest one dropped, so that rounding in the folded weights
    moves neither across. Activations tied at the boundary are all dropped (mean L0 is then just below k). Where fewer than
    k per row are positive, every positive activation is kept: the threshold is 0.

    Memory: about 4 k values per row are kept of each batch (in expectation), or the whole batch where it is small.

    Args:
        pre_act_batches: Starts a pass over non-negative activations [B, F], from `Architecture.pre_acts_for_threshold`, on
            any device; called again where the batches differ much.
        k: Wanted mean number of active latents per row.

    Returns:
        The threshold, in the units of the batches.

    Raises:
        ValueError: k is not positive, or there are no rows.
    """
    if k <= 0:
        raise ValueError(f"k must be positive, got {k}")
    candidates, n_rows, highest_left_out = _candidates(pre_act_batches(), lambda h_BF: _bound(h_BF, k))
    if n_rows == 0:
        raise ValueError("no rows to calibrate the threshold on")
    n_kept = int(k * n_rows)
    if highest_left_out > 0:
        # What was left out could only raise the largest dropped one; where it may have, all that lies above is looked at.
        dropped = _nth_largest(candidates, n_kept + 1)
        if dropped < highest_left_out:
            minimum = torch.nextafter(torch.tensor(dropped), torch.tensor(0.0)).item()
            candidates, _, _ = _candidates(pre_act_batches(), lambda _: minimum)
    return _upper_quantile(candidates, n_kept)


def _candidates(batches: Iterable[Tensor], bound_of: Callable[[Tensor], float]) -> tuple[Tensor, int, float]:
    """Return the activations above their batch's bound, the number of rows, and the highest bound."""
    n_rows, highest = 0, 0.0
    found: list[Tensor] = [torch.empty(0)]
    for h_BF in batches:
        if h_BF.ndim != 2:
            raise ValueError(f"pre-activations must be [tokens, d_sae], got {list(h_BF.shape)}")
        n_rows += h_BF.shape[0]
        bound = bound_of(h_BF)
        highest = max(highest, bound)
        found.append(h_BF[h_BF > bound])
    return torch.cat([part.to(found[-1]) for part in found]), n_rows, highest


def _nth_largest(values: Tensor, n: int) -> float:
    """Return the n-th largest of positive values; 0 where there are fewer."""
    return float(values.topk(n, sorted=False).values.min()) if n <= values.numel() else 0.0


def _bound(h_BF: Tensor, k: float) -> float:
    """Return a value that about 4 k activations of each row exceed; 0 where that would be nearly all of the positive ones."""
    if h_BF.numel() < _MIN_SAMPLED_ELEMENTS:
        return 0.0
    sample = h_BF[::_SAMPLE_EVERY]
    rank = int(_CANDIDATES_PER_SELECTED * k * sample.shape[0]) + 1
    return _nth_largest(sample.flatten(), rank)


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
