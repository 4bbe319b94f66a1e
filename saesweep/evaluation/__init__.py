"""Metrics on held-out activations, always through the exported form."""

from saesweep.evaluation.evaluate import HeldOutEvaluator, needs_language_model
from saesweep.evaluation.reconstruction import ReconstructionMetrics
from saesweep.evaluation.splice import SplicedMetrics

__all__ = ["HeldOutEvaluator", "ReconstructionMetrics", "SplicedMetrics", "needs_language_model"]
