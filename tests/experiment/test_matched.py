"""`objective.matched` in the file: a target for every trial, and what cannot go with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from saesweep.errors import Problem
from saesweep.experiment import load_experiment

Tree = dict[str, Any]


@pytest.fixture
def matched(tree: Tree) -> Tree:
    """Three architectures at three targets; 10,000 steps."""
    tree["base"]["training_tokens"] = 10_000_000
    tree["by_architecture"] = {
        "jumprelu": {
            "preset": "anthropic-jan-2025",
            "sae.jumprelu_ste_to_input": True,
            "sae.l0_warm_up_steps": "5%",
            "sae.l0_coefficient": 0.1,
        },
        "gated": {"sae.l1_coefficient": 2, "sae.l1_warm_up_steps": "5%"},
    }
    tree["space"] = {"sae.architecture": {"choice": ["topk", "jumprelu", "gated"]}}
    tree["objective"] = {"minimize": "mse", "matched": {"l0": [8, 16.0, 32]}}
    tree["search"] = {"sampler": "grid", "pruner": "none"}
    return tree


def test_each_trial_has_a_target(matched: Tree) -> None:
    experiment = load_experiment(matched)
    assert experiment.warnings == ()
    assert experiment.n_trials == 9
    target = experiment.parameters()[-1]
    assert (target.path, target.spec.choice, target.when) == ("target_l0", (8, 16, 32), {})
    topk = experiment.resolve({"sae.architecture": "topk", "target_l0": 16})
    assert topk.sae.model_dump()["k"] == 16
    gated = {"sae.architecture": "gated", "target_l0": 16}
    assert experiment.resolve(gated).sae.model_dump()["l1_coefficient"] == 2
    assert experiment.target_l0(gated) == 16


def test_a_quadratic_loss_takes_the_target_itself(matched: Tree) -> None:
    matched["by_architecture"]["jumprelu"] = {
        "sae.jumprelu_sparsity_loss_mode": "quadratic",
        "sae.jumprelu_ste_to_input": True,
    }
    run = load_experiment(matched).resolve({"sae.architecture": "jumprelu", "target_l0": 32})
    assert run.sae.model_dump()["target_l0"] == 32


def set_path(tree: Tree, path: str, value: Any) -> None:
    *blocks, name = path.split("/")
    for block in blocks:
        tree = tree.setdefault(block, {})
    tree[name] = value


PROBLEMS: list[tuple[str, Any, str, str]] = [
    ("space/sae.k", {"choice": [8, 64]}, "space.sae.k", "objective.matched sets k of topk"),
    ("base/sae/k", 32, "base.sae.k", "objective.matched sets k of topk"),
    ("by_architecture/topk", {"sae.k": 32}, "by_architecture.topk.sae.k", "leave it out"),
    ("objective/minimize", "l0", "objective.matched", "cannot be what is compared"),
    ("objective/subject_to", {"l0": {"max": 64}}, "objective.subject_to.l0", "contradicts objective.matched"),
    ("objective/matched/l0", [8, 2000], "objective.matched.l0", "2000 is more than d_sae 1024"),
    ("objective/matched/l0", [8.5, 16], "objective.matched.l0", "8.5"),
    ("objective/matched/freeze", "20%", "objective.matched.freeze", "at least the last 30%"),
    ("objective/matched/freeze", "100%", "objective.matched.freeze", "less than all of it"),
    ("objective/matched/max_change", 1, "objective.matched.max_change", "1"),
    ("search/target", 0.5, "search.target", "each L0 has its own"),
    ("search/patience", 3, "search.patience", "each L0 has its own"),
    ("search/stratify", "target_l0", "search.stratify", "not needed"),
    ("search/baselines", [{"target_l0": 64}], "search.baselines[0].target_l0", "outside the space: choice [8, 16, 32]"),
    ("by_architecture/gated/sae.l1_coefficient", 0, "by_architecture.gated.sae.l1_coefficient", "start above 0"),
    ("by_architecture/gated/sae.l1_warm_up_steps", "50%", "by_architecture.gated.sae.l1_warm_up_steps", "within 20%"),
]


@pytest.mark.parametrize(("path", "value", "place", "said"), PROBLEMS, ids=lambda v: str(v)[:40])
def test_one_mistake_gives_one_message(
    matched: Tree, only_problem: Callable[..., Problem], path: str, value: Any, place: str, said: str
) -> None:
    if path.startswith("search/baselines"):
        matched["search"] = {"trials": 9}
    set_path(matched, path, value)
    problem = only_problem(matched)
    assert problem.path == place
    assert said in problem.message


def test_the_presets_warm_up_over_the_whole_run_leaves_no_time(
    matched: Tree, only_problem: Callable[..., Problem]
) -> None:
    del matched["by_architecture"]["jumprelu"]["sae.l0_warm_up_steps"]
    problem = only_problem(matched)
    assert problem.path == "by_architecture.jumprelu.preset"
    assert "sae.l0_warm_up_steps: 5%" in problem.message


def test_p_annealing_and_matched_l0_would_both_move_the_coefficient(
    matched: Tree, only_problem: Callable[..., Problem]
) -> None:
    matched["space"] = {"sae.architecture": {"choice": ["topk", "standard"]}}
    matched["by_architecture"] = {"standard": {"sae.p_end": 0.3}}
    problem = only_problem(matched)
    assert problem.path == "by_architecture.standard.sae.p_end"
    assert "adapts l1_coefficient, which objective.matched steers" in problem.message


def test_a_target_without_matched_l0(tree: Tree, only_problem: Callable[..., Problem]) -> None:
    tree["space"] = {"sae.architecture": {"choice": ["topk", "gated"]}}
    tree["search"] = {"baselines": [{"target_l0": 8}]}
    assert "needs objective: {matched" in only_problem(tree).message


WARNINGS: list[tuple[str, Any, str]] = [
    ("objective/matched/l0", [8, 16], "interpolation on log L0 takes three"),
    ("base/training_tokens", 500_000, "500 steps are few"),
    ("search", {"trials": 5}, "some get no trial"),
    ("space/sae.l1_coefficient", {"choice": [1.0, 2.0]}, "only where it starts"),
]


@pytest.mark.parametrize(("path", "value", "said"), WARNINGS, ids=lambda v: str(v)[:40])
def test_what_may_disappoint_is_said(matched: Tree, path: str, value: Any, said: str) -> None:
    set_path(matched, path, value)
    if path == "space/sae.l1_coefficient":  # a stated one would never hold beside it, which is a mistake of its own
        for own in matched["by_architecture"].values():
            own.pop("sae.l1_coefficient", None)
    assert any(said in warning for warning in load_experiment(matched).warnings)


def test_step_mode_may_not_answer(matched: Tree) -> None:
    matched["by_architecture"]["jumprelu"] = {"sae.jumprelu_ste_to_input": True}
    assert any("step hardly answers" in warning for warning in load_experiment(matched).warnings)
