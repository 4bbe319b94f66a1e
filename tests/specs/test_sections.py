from __future__ import annotations

import pytest
from pydantic import ValidationError

from saesweep.specs import METRICS, CohortSpec, ExperimentSpec, ObjectiveSpec, ParameterSpec


def test_parameter_kinds_and_extremes() -> None:
    real = ParameterSpec.model_validate({"float": [1, 2.5]})
    assert (real.kind, real.low, real.high, real.extremes()) == ("float", 1.0, 2.5, (1.0, 2.5))
    whole = ParameterSpec.model_validate({"int": [1, 8], "log": True})
    assert (whole.kind, whole.extremes()) == ("int", (1, 8))
    choice = ParameterSpec.model_validate({"choice": ["a", None]})
    assert (choice.kind, choice.extremes()) == ("choice", ("a", None))
    assert real.problems() == whole.problems() == choice.problems() == []


@pytest.mark.parametrize(
    ("range_", "field", "says"),
    [
        ({}, "", "none of them"),
        ({"int": [1, 2], "choice": [1]}, "", "int and choice"),
        ({"int": [3, 2]}, "int", "above the upper"),
        ({"float": [0, 1], "log": True}, "float", "above 0"),
        ({"float": [1, 2], "log": True, "step": 0.1}, "step", "log"),
        ({"int": [1, 9], "step": 1.5}, "step", "whole number"),
        ({"int": [1, 9], "grid": [1, 10]}, "grid", "outside"),
        ({"float": [0, 1], "step": 0.25, "grid": [0.25, 0.3]}, "grid", "0.3 is outside float [0, 1] in steps of 0.25"),
        ({"choice": [1], "step": 1.0}, "step", "a choice has none"),
    ],
)
def test_parameter_mistakes(range_: dict[str, object], field: str, says: str) -> None:
    found = ParameterSpec.model_validate(range_).problems()
    assert found[0][0] == field
    assert says in found[0][1]


def test_one_range_is_a_list_of_one() -> None:
    spec = ExperimentSpec.model_validate({"name": "a", "base": {}, "space": {"lr": {"choice": [1]}}})
    assert len(spec.space["lr"]) == 1


def test_conditions_take_one_value_or_several() -> None:
    spec = ParameterSpec.model_validate({"choice": [1], "when": {"a": "x", "b": ["y", "z"]}})
    assert spec.when == {"a": ("x",), "b": ("y", "z")}


def test_objectives() -> None:
    pareto = ObjectiveSpec.model_validate({"pareto": [{"minimize": "l0"}, {"maximize": "explained_variance"}]})
    assert [(g.metric, g.direction) for g in pareto.goals] == [("l0", "minimize"), ("explained_variance", "maximize")]
    one = ObjectiveSpec.model_validate({"minimize": "mse", "subject_to": {"l0": {"max": 4}}})
    assert (one.is_pareto, one.metric_names()) == (False, ("mse", "l0"))


def test_metrics_are_named_by_their_key() -> None:
    assert all(name == metric.name and metric.description for name, metric in METRICS.items())


@pytest.mark.parametrize("name", ["", "a b", "../x", ".hidden", "x" * 81])
def test_names_that_are_no_folder(name: str) -> None:
    with pytest.raises(ValidationError):
        ExperimentSpec.model_validate({"name": name, "base": {}})


@pytest.mark.parametrize("size", [0, -1, "all", 1.5, True])
def test_cohort_sizes(size: object) -> None:
    with pytest.raises(ValidationError):
        CohortSpec.model_validate({"size": size})
