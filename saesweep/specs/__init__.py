"""Configuration models of an experiment. Torch-free: importing this loads no numeric library."""

from saesweep.specs.base_run import BaseRun
from saesweep.specs.datasets import DatasetSpec, WeightedDatasetSpec
from saesweep.specs.experiment import (
    CohortSpec,
    ConfirmSpec,
    EngineSpec,
    EvaluationSpec,
    ExperimentSpec,
    RaySpec,
    SearchSpec,
)
from saesweep.specs.objective import LOG_METRICS, METRICS, Bound, Goal, MatchedSpec, Metric, ObjectiveSpec
from saesweep.specs.probes import ProbesSpec, ProbeTaskSpec
from saesweep.specs.schedules import RAMP_FIELDS, ControlPlan, LearningRate, PAnnealingPlan, Ramp, ramps_of
from saesweep.specs.space import ParameterSpec, is_among, is_same
from saesweep.specs.units import Duration, format_count, multiple_of, parse_count

__all__ = [
    "BaseRun",
    "Bound",
    "CohortSpec",
    "ConfirmSpec",
    "ControlPlan",
    "DatasetSpec",
    "Duration",
    "EngineSpec",
    "EvaluationSpec",
    "ExperimentSpec",
    "Goal",
    "LOG_METRICS",
    "LearningRate",
    "METRICS",
    "MatchedSpec",
    "Metric",
    "ObjectiveSpec",
    "PAnnealingPlan",
    "ParameterSpec",
    "ProbeTaskSpec",
    "ProbesSpec",
    "RAMP_FIELDS",
    "Ramp",
    "RaySpec",
    "SearchSpec",
    "WeightedDatasetSpec",
    "format_count",
    "is_among",
    "is_same",
    "multiple_of",
    "parse_count",
    "ramps_of",
]
