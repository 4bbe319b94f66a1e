"""Metrics on held-out activations, always through the exported form."""

from saesweep.evaluation.compare import Comparison, Evaluated, evaluate_saes
from saesweep.evaluation.evaluate import HeldOutEvaluator, needs_language_model
from saesweep.evaluation.reconstruction import ReconstructionMetrics
from saesweep.evaluation.splice import SplicedMetrics
from saesweep.evaluation.spread import PairedSums

__all__ = [
    "Comparison",
    "Evaluated",
    "evaluate_saes",
    "HeldOutEvaluator",
    "PairedSums",
    "ReconstructionMetrics",
    "SplicedMetrics",
    "needs_language_model",
]
