"""Exact sparse kernels behind the `GradientEngine` seam."""

from saesweep.cohort.kernels.choice import KernelChoice
from saesweep.cohort.kernels.engine import SparseEngine

__all__ = ["KernelChoice", "SparseEngine"]
