"""Configuration models of an experiment. Torch-free: importing this loads no numeric library."""

from saesweep.specs.base_run import BaseRun
from saesweep.specs.cohort import CohortSpec
from saesweep.specs.engine import EngineSpec, RaySpec
from saesweep.specs.evaluation import EvaluationSpec
from saesweep.specs.experiment import ExperimentSpec
from saesweep.specs.learning_rate import LearningRate
from saesweep.specs.metrics import LOG_METRICS, METRICS, Metric
from saesweep.specs.objective import Bound, Goal, MatchedSpec, ObjectiveSpec
from saesweep.specs.search import ConfirmSpec, SearchSpec
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
    "RaySpec",
    "SearchSpec",
    "format_count",
    "multiple_of",
    "parse_count",
]
