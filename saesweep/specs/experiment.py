"""The whole experiment file."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator

from saesweep.specs.cohort import CohortSpec
from saesweep.specs.engine import EngineSpec
from saesweep.specs.evaluation import EvaluationSpec
from saesweep.specs.model import Spec
from saesweep.specs.objective import ObjectiveSpec
from saesweep.specs.search import SearchSpec
from saesweep.specs.space import ParameterSpec


def _list_of_ranges(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else (value,)


Ranges = Annotated[tuple[ParameterSpec, ...], BeforeValidator(_list_of_ranges)]
"""One range, or a list of ranges under different conditions."""


class ExperimentSpec(Spec):
    """What one YAML file declares. `base` and `by_architecture` stay trees: a trial resolves them to a `BaseRun`."""

    name: str = Field(min_length=1, max_length=80)
    """Name of the experiment and of its run directory: letters, digits, `.`, `_` and `-`."""
    base: dict[str, Any]
    """The training run that every trial starts from, in SAELens' field names. `sae` fields that a trial's architecture lacks are left out."""
    by_architecture: dict[str, dict[str, Any]] = {}
    """Overrides of `base` that hold for one architecture only: dotted paths, and `preset: NAME`."""
    space: dict[str, Ranges] = {}
    """Dotted paths of `base`, each with its range. Empty: train once."""
    objective: ObjectiveSpec | None = None
    """What to optimise. When left out: the Pareto front of L0 and delta_ce (explained_variance where there is no language-model head)."""
    evaluation: EvaluationSpec = EvaluationSpec()
    """How trials are measured."""
    search: SearchSpec = SearchSpec()
    """How the space is searched."""
    cohort: CohortSpec = CohortSpec()
    """How many SAEs train at once."""
    engine: EngineSpec = EngineSpec()
    """Where they train: in this process, unless an engine is named."""

    @field_validator("name")
    @classmethod
    def _is_folder_name(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", value):
            raise ValueError(
                f"{value!r} names the run directory; use letters, digits, '.', '_' and '-' only, starting with a letter or digit"
            )
        return value
