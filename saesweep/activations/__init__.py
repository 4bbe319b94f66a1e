"""From documents to shuffled batches of activations, and the held-out parts. Knows nothing of trials."""

from saesweep.activations.held_out import HeldOut
from saesweep.activations.open import ActivationSource, open_source
from saesweep.activations.preflight import SourceFacts, check_source
from saesweep.activations.sinks import Sinks, find_sinks
from saesweep.activations.stream import ActivationStream, BatchStream
from saesweep.activations.synthetic import SyntheticFeatures, SyntheticStream

__all__ = [
    "ActivationSource",
    "ActivationStream",
    "BatchStream",
    "HeldOut",
    "Sinks",
    "SourceFacts",
    "SyntheticFeatures",
    "SyntheticStream",
    "check_source",
    "find_sinks",
    "open_source",
]
