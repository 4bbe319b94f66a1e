"""The memory that stacked steps take beyond slots: every SAE has its own of what others share one after the other."""

from __future__ import annotations

from saesweep.cohort.kernels.stacked_select import k_full_of, width_for
from saesweep.specs import BaseRun, Duration
from saesweep.specs.architectures import BatchTopKSpec, MatryoshkaBatchTopKSpec, TopKSpec

_LARGEST_CHUNK = 1 << 26
"""Pre-activations of one SAE at once, at most: the largest chunk that start-up measurement chooses."""
_SELECTING, _INPUTS, _GRADIENTS = 2, 6, 4
"""What is held of pre-activations while the largest are found, of the batch, and of each weight matrix: measured, see the test."""
_PAIR_BYTES = 90
_STACKED = ("topk", "batchtopk", "matryoshka_batchtopk")


def stacked_bytes(run: BaseRun) -> int:
    """Return the memory that a stacked step takes for each SAE of a run, beside its slot; 0 where it is not stacked."""
    sae = run.sae
    if not isinstance(sae, TopKSpec | BatchTopKSpec) or sae.architecture not in _STACKED:
        return 0
    assert sae.d_in is not None
    assert sae.d_sae is not None
    n_tokens, weights = run.train_batch_size_tokens, sae.d_in * sae.d_sae
    k_start = 0.0 if sae.k_anneal_steps == Duration(0) else sae.k_start or float(sae.d_in)
    pairs = min(width_for(max(sae.k, k_start)), sae.d_sae)
    if sae.aux_loss_coefficient > 0:
        pairs += min(k_full_of(sae.d_in), sae.d_sae)
    selecting = weights + n_tokens * sae.d_in + _SELECTING * min(n_tokens * sae.d_sae, _LARGEST_CHUNK)
    levels = 1 + len(sae.inner_widths) if isinstance(sae, MatryoshkaBatchTopKSpec) else 1
    after = _GRADIENTS * weights + _INPUTS * levels * n_tokens * sae.d_in
    size = 8 if sae.dtype == "float64" else 4
    return max(size * selecting, size * after + _PAIR_BYTES * n_tokens * pairs)
