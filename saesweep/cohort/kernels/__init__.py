"""Exact sparse kernels behind the `GradientEngine` seam."""

from saesweep.cohort.kernels.backends import choose
from saesweep.cohort.kernels.cache import kernel_choice
from saesweep.cohort.kernels.choice import KernelChoice
from saesweep.cohort.kernels.engine import SparseEngine
from saesweep.cohort.kernels.exactness import gemm_error, is_exact, screen_error
from saesweep.cohort.kernels.memory import gpu_step_bytes
from saesweep.cohort.kernels.pairs import triton_or_none

__all__ = [
    "KernelChoice",
    "SparseEngine",
    "choose",
    "gemm_error",
    "gpu_step_bytes",
    "is_exact",
    "kernel_choice",
    "screen_error",
    "triton_or_none",
]
