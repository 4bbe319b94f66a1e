"""How much memory a step of the sparse kernels takes on a GPU, known before anything is measured there.

Of the settings that a start-up measurement may choose, those that take most: the largest chunks, products out of fp16 halves,
and for the penalised architectures dense chunks, with which they begin. `tests/sweep/test_gpu_memory.py` counts what is allocated.
"""

from __future__ import annotations

from typing import Any

from saesweep.cohort.kernels.backends import LARGEST_CHUNK_GPU
from saesweep.cohort.kernels.choice import KernelChoice
from saesweep.cohort.kernels.engine import step_of
from saesweep.cohort.kernels.gated import gated_step
from saesweep.cohort.kernels.jumprelu import jumprelu_step
from saesweep.cohort.kernels.standard import standard_step
from saesweep.saes import Architecture
from saesweep.specs.architectures import MatryoshkaBatchTopKSpec

_CHUNK_BUFFERS = {standard_step: 2, gated_step: 3, jumprelu_step: 5}
"""Tensors of a chunk's [tokens, d_sae] that a dense chunk holds at once."""
_HALVES = 3 * 2 / 4
"""A factor's three parts in fp16, for each byte of it in float32."""
_PAIR_BYTES = 80
"""Indices and values of a selected pair, with those that sorting takes."""


def gpu_step_bytes(architecture: Architecture[Any], n_tokens: int) -> int:
    """Return the most memory of a step beside weights, moments and gradients, where no or few latents are dead.

    Args:
        architecture: One that the sparse kernels train.
        n_tokens: Tokens of a batch.
    """
    spec, d_sae = architecture.spec, architecture.d_sae
    rows = min(n_tokens, KernelChoice(chunk_elements=LARGEST_CHUNK_GPU).chunk_rows(d_sae))
    number = 8 if spec.dtype == "float64" else 4
    halves = 0.0 if spec.dtype == "float64" else _HALVES
    chunk, weights = number * rows * d_sae, number * d_sae * max(architecture.d_in, architecture.d_out)
    read, written = number * n_tokens * architecture.d_in, number * n_tokens * architecture.d_out
    buffers = _CHUNK_BUFFERS.get(step_of(architecture))
    if buffers is not None:
        return int(buffers * chunk + halves * (chunk + weights) + read + 2 * written)
    levels = len(spec.inner_widths) + 1 if isinstance(spec, MatryoshkaBatchTopKSpec) else 1
    encoding = halves * (weights + number * rows * architecture.d_in)
    products = levels * written + _PAIR_BYTES * spec.k * n_tokens
    return int(chunk + read + max(encoding, products))
