from __future__ import annotations

import contextlib
import copy
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saesweep.errors import ExperimentError
from saesweep.experiment import load_experiment
from saesweep.experiment.fields import known_paths, run_fields, sae_fields
from saesweep.experiment.yaml_text import read_yaml

from .conftest import TREE

WORDS = st.sampled_from(
    [
        *("name", "base", "by_architecture", "space", "objective", "evaluation", "search", "cohort"),
        *(
            "float",
            "int",
            "choice",
            "log",
            "step",
            "grid",
            "when",
            "minimize",
            "maximize",
            "pareto",
            "subject_to",
            "min",
            "max",
        ),
        *(
            "rungs",
            "baselines",
            "stratify",
            "trials",
            "sampler",
            "preset",
            "anthropic-jan-2025",
            "tpe",
            "grid",
            "l0",
            "delta_ce",
        ),
        *(
            "topk",
            "jumprelu",
            "standard",
            "gated",
            "batchtopk",
            "constant",
            "cosineannealing",
            "5%",
            "90M",
            "builtin:synthetic",
        ),
        *known_paths(),
        *run_fields(),
        *sae_fields(),
    ]
)
SCALARS = st.none() | st.booleans() | st.integers(-5, 10**6) | st.floats(-10, 1e6) | WORDS | st.text(max_size=5)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4), max_leaves=10
)


def _places(node: Any) -> list[tuple[Any, Any]]:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [place for key, child in items for place in [(node, key), *_places(child)]]


def _load(tree: Any) -> None:
    """The loader's promise: an experiment, or all mistakes in one `ExperimentError`."""
    try:
        experiment = load_experiment(tree, env={})
    except ExperimentError:
        return
    experiment.parameters()
    assert experiment.n_trials >= 1


RICH: dict[str, Any] = {
    **TREE,
    "by_architecture": {"jumprelu": {"preset": "anthropic-jan-2025"}, "topk": {"adam_beta1": 0.8}},
    "space": {
        "sae.architecture": {"choice": ["topk", "jumprelu"]},
        "sae.k": {"int": [1, 64], "log": True},
        "sae.l0_coefficient": [{"float": [0.1, 1.0], "when": {"lr_scheduler_name": "constant"}}],
        "lr_scheduler_name": {"choice": ["constant", "cosineannealing"]},
        "lr": {"float": [1e-4, 1e-3], "grid": [1e-4, 1e-3]},
    },
    "objective": {"pareto": [{"minimize": "l0"}, {"minimize": "delta_ce"}], "subject_to": {"l0": {"max": 64}}},
    "search": {"rungs": ["5%", "20%"], "stratify": "sae.architecture", "baselines": [{"sae.k": 8}]},
    "cohort": {"size": 2},
}


def test_the_tree_that_is_damaged_below_is_valid() -> None:
    load_experiment(copy.deepcopy(RICH))


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_valid_experiment_with_random_changes_never_crashes(data: st.DataObject) -> None:
    tree = copy.deepcopy(RICH)
    for _ in range(data.draw(st.integers(1, 3))):
        node, key = data.draw(st.sampled_from(range(len(_places(tree)))).map(lambda i: _places(tree)[i]))
        change = data.draw(st.sampled_from(["replace", "delete", "add"]))
        if change == "replace":
            node[key] = data.draw(VALUES)
        elif change == "delete":
            del node[key]
        elif isinstance(node, dict):
            node[data.draw(WORDS)] = data.draw(VALUES)
        if not _places(tree):
            break
    _load(tree)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(WORDS, VALUES, max_size=5))
def test_random_trees_never_crash(tree: dict[str, Any]) -> None:
    _load(tree)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="ab: -[]{}&*<>\n\t'\"#|!?,.0159e_%\\", max_size=60) | st.text(max_size=40))
def test_random_text_is_read_or_refused(text: str) -> None:
    document = read_yaml(text, "e.yaml")
    assert isinstance(document.tree, dict)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text(alphabet="abse.=[]{}0123,:", max_size=20) | WORDS.map(lambda w: f"{w}=1"), max_size=3))
def test_random_overrides_never_crash(overrides: list[str]) -> None:
    with contextlib.suppress(ExperimentError):
        load_experiment(copy.deepcopy(RICH), overrides=overrides)
