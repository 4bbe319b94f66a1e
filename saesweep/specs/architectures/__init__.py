"""Configuration models of the SAE architectures, by name."""

from saesweep.specs.architectures.base import (
    NormalizeActivations,
    SAESpec,
    all_listed,
    architectures,
    listed,
    register_spec,
    spec_class,
)
from saesweep.specs.architectures.penalised import GatedSpec, JumpReLUSpec, StandardSpec
from saesweep.specs.architectures.pursuit import MatchingPursuitSpec
from saesweep.specs.architectures.topk import (
    AbsTopKSpec,
    BatchTopKSpec,
    MatryoshkaBatchTopKSpec,
    MultiKSpec,
    TopKFamilySpec,
    TopKSpec,
)
from saesweep.specs.architectures.transcoder import TRANSCODERS, TranscoderSpec

# isort: split
# After the SAEs: architectures are listed in the order in which they are registered.
from saesweep.specs.architectures.crosscoder import CROSSCODERS, CrosscoderSpec

__all__ = [
    "NormalizeActivations",
    "SAESpec",
    "all_listed",
    "architectures",
    "listed",
    "register_spec",
    "spec_class",
    "StandardSpec",
    "GatedSpec",
    "JumpReLUSpec",
    "TopKFamilySpec",
    "TopKSpec",
    "BatchTopKSpec",
    "MatryoshkaBatchTopKSpec",
    "AbsTopKSpec",
    "MultiKSpec",
    "MatchingPursuitSpec",
    "CrosscoderSpec",
    "CROSSCODERS",
    "TranscoderSpec",
    "TRANSCODERS",
]
