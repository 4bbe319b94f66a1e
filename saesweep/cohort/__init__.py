"""The SAEs that train together from one stream."""

from saesweep.cohort.cohort import CALIBRATION_BATCHES, Cohort
from saesweep.cohort.control import ControlPoint, SparsityControl
from saesweep.cohort.engine import CompiledForward, GradientEngine, ReferenceEngine, StepGradients
from saesweep.cohort.slot import Slot
from saesweep.cohort.stacks import Stacks, is_stackable

__all__ = [
    "CALIBRATION_BATCHES",
    "Cohort",
    "CompiledForward",
    "ControlPoint",
    "GradientEngine",
    "ReferenceEngine",
    "Slot",
    "SparsityControl",
    "Stacks",
    "StepGradients",
    "is_stackable",
]
