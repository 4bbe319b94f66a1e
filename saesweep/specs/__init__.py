"""Configuration models of an experiment. Torch-free: importing this loads no numeric library."""

from saesweep.specs.base_run import BaseRun
from saesweep.specs.evaluation_data import EvaluationDatasetSpec, ProbesSpec, ProbeTaskSpec
from saesweep.specs.experiment import (
    CohortSpec,
    ConfirmSpec,
    EngineSpec,
    EvaluationSpec,
    ExperimentSpec,
    RaySpec,
    SearchSpec,
)
from saesweep.specs.learning_rate import LearningRate
from saesweep.specs.objective import LOG_METRICS, METRICS, Bound, Goal, MatchedSpec, Metric, ObjectiveSpec
from saesweep.specs.ramps import RAMP_FIELDS, Ramp, ramps_of
from saesweep.specs.space import ParameterSpec
from saesweep.specs.steering import ControlPlan
from saesweep.specs.units import Duration, format_count, multiple_of, parse_count

__all__ = [
    "BaseRun",
    "Bound",
    "CohortSpec",
    "ConfirmSpec",
    "ControlPlan",
    "Duration",
    "EngineSpec",
    "EvaluationDatasetSpec",
    "EvaluationSpec",
    "ExperimentSpec",
    "Goal",
    "LOG_METRICS",
    "LearningRate",
    "METRICS",
    "MatchedSpec",
    "Metric",
    "ObjectiveSpec",
    "ParameterSpec",
    "ProbeTaskSpec",
    "ProbesSpec",
    "RAMP_FIELDS",
    "Ramp",
    "RaySpec",
    "SearchSpec",
    "format_count",
    "multiple_of",
    "parse_count",
    "ramps_of",
]
