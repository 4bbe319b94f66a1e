"""`base.synthetic`: what is wrong with it is said at its place."""

from collections.abc import Callable
from typing import Any

import pytest

from saesweep.errors import Problem
from saesweep.experiment import load_experiment
from tests.sweep.studies import small_sweep


def with_synthetic(**fields: Any) -> dict[str, Any]:
    tree = small_sweep()
    tree["base"]["synthetic"] = fields
    return tree


@pytest.mark.parametrize(
    ("fields", "path", "message"),
    [
        ({"num_featurs": 3}, "num_featurs", "did you mean 'num_features'"),
        ({"num_features": 0}, "num_features", "must be at least 1, not 0"),
        ({"mean_firing_magnitudes": -1}, "mean_firing_magnitudes", "must be above 0, not -1"),
        (
            {"std_firing_magnitudes": {"generator_name": "linear", "start": 1.0}},
            "std_firing_magnitudes.end",
            "missing; it is required",
        ),
        ({"firing_probability": {"max_prob": 2}}, "firing_probability.max_prob", "must be at most 1, not 2"),
        (
            {"firing_probability": {"mean_active": 65}},
            "firing_probability",
            "more than 128 features that fire with at most",
        ),
        ({"hierarchy": {"total_root_nodes": 129}}, "hierarchy", "129 is more than 128 features"),
        ({"hierarchy": {"branching_factor": [5, 2], "total_root_nodes": 1}}, "hierarchy", "must be [least, most]"),
        ({"correlation": {"rank": 0}}, "correlation.rank", "must be at least 1, not 0"),
        ({"correlation": 1}, "correlation", "takes a mapping of keys"),
    ],
)
def test_mistakes(fields: Any, path: str, message: str, only_problem: Callable[..., Problem]) -> None:
    problem = only_problem(with_synthetic(**fields))
    assert problem.path == f"base.synthetic.{path}"
    assert message in problem.message


def test_another_dataset_does_not_read_it(tree: dict[str, Any], only_problem: Callable[..., Problem]) -> None:
    tree["base"]["synthetic"] = {"num_features": 100}
    assert "only dataset_path: builtin:synthetic reads it" in only_problem(tree).message


def test_it_is_part_of_what_a_run_directory_belongs_to() -> None:
    plain, other = load_experiment(with_synthetic()), load_experiment(with_synthetic(num_features=100))
    assert plain.fingerprint() != other.fingerprint()


def test_it_is_the_same_for_all_trials(only_problem: Callable[..., Problem]) -> None:
    tree = small_sweep()
    tree["space"]["synthetic.num_features"] = {"int": [8, 64]}
    assert "cannot be searched" in only_problem(tree).message
