"""Metrics on held-out activations, always through the exported form."""

from saesweep.evaluation.compare import Comparison, Evaluated, evaluate_saes
from saesweep.evaluation.decoder_cosine import decoder_cosine
from saesweep.evaluation.evaluate import HeldOutEvaluator, needs_language_model
from saesweep.evaluation.latents import Densities, FiringCounter, RecoveryMetrics
from saesweep.evaluation.probes import Probes
from saesweep.evaluation.reconstruction import ReconstructionMetrics
from saesweep.evaluation.registered import HeldOutMetric, register_metric, registered_metrics
from saesweep.evaluation.seed_stability import seed_stability
from saesweep.evaluation.splice import SplicedMetrics
from saesweep.evaluation.spread import ByContext, PairedSums

__all__ = [
    "ByContext",
    "Comparison",
    "Densities",
    "Evaluated",
    "decoder_cosine",
    "evaluate_saes",
    "FiringCounter",
    "HeldOutEvaluator",
    "HeldOutMetric",
    "PairedSums",
    "Probes",
    "ReconstructionMetrics",
    "RecoveryMetrics",
    "SplicedMetrics",
    "needs_language_model",
    "register_metric",
    "registered_metrics",
    "seed_stability",
]
