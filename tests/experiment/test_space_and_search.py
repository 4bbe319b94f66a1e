"""Static checks of `space`, `by_architecture`, `objective` and `search`, each with the one message that a mistake gets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from saesweep.errors import Problem
from saesweep.experiment import load_experiment

One = Callable[..., Problem]
Problems = Callable[..., list[Problem]]


def with_space(tree: dict[str, Any], **ranges: Any) -> dict[str, Any]:
    tree["space"] = {
        "sae.architecture": {"choice": ["topk", "gated", "standard"]},
        **{path.replace("__", "."): spec for path, spec in ranges.items()},
    }
    return tree


def test_a_listed_trial_that_would_never_run(tree: dict[str, Any], only_problem: One) -> None:
    tree = with_space(tree, lr={"float": [1e-4, 1e-3]})
    tree["search"] = {"trials": 2, "baselines": [{"lr": 1e-4}, {"lr": 5e-4}, {"lr": 1e-3}]}
    problem = only_problem(tree)
    assert problem.path == "search.trials"
    assert "the last 1 would never run; raise trials to at least 3" in problem.message


def test_a_value_for_one_architecture_that_the_space_always_overrides(tree: dict[str, Any], problems: Problems) -> None:
    tree = with_space(tree, lr={"float": [1e-4, 1e-3]})
    tree["by_architecture"] = {"standard": {"lr": 5e-4, "adam_beta1": 0.8}}
    (problem,) = problems(tree)
    assert problem.path == "by_architecture.standard.lr"
    assert "this one never holds" in problem.message
    tree["space"]["lr"]["when"] = {"sae.architecture": ["topk", "gated"]}
    assert problems(tree) == []


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"int": [4, 16], "step": 5}, "end at 14 and never reach 16; write 14 or 19"),
        ({"float": [0.1, 1.0], "step": 0.4}, "end at 0.9 and never reach 1; write 0.9 or 1.3"),
        ({"float": [0.1, 1.0], "step": 7e-60}, "and never reach 1"),
    ],
)
def test_a_step_that_never_reaches_the_end(tree: dict[str, Any], only_problem: One, spec: Any, says: str) -> None:
    tree = with_space(tree, **{"sae__k" if "int" in spec else "lr": spec})
    assert says in only_problem(tree).message


@pytest.mark.parametrize(
    "spec", [{"int": [4, 16], "step": 4}, {"float": [0.1, 1.0], "step": 0.3}, {"float": [0.1, 1], "step": 1e-60}]
)
def test_a_step_that_reaches_the_end(tree: dict[str, Any], problems: Problems, spec: Any) -> None:
    assert problems(with_space(tree, **{"sae__k" if "int" in spec else "lr": spec})) == []


def test_a_finite_space_is_not_searched_beyond_its_points(tree: dict[str, Any]) -> None:
    tree["space"] = {"sae.k": {"int": [4, 16], "step": 6}, "lr": {"choice": [1e-4, 1e-3]}}
    tree["search"] = {"trials": 20}
    experiment = load_experiment(tree)
    assert experiment.n_trials == 6
    assert any("20, but the space has 6 points; each is tried once" in warning for warning in experiment.warnings)
    tree["search"] = {}
    assert load_experiment(tree).n_trials == 6
    tree["space"]["lr"] = {"float": [1e-4, 1e-3]}
    assert load_experiment(tree).n_trials == 32


def test_fewer_slots_than_replicates(tree: dict[str, Any], only_problem: One) -> None:
    tree["search"] = {"replicates": 3}
    tree["cohort"] = {"size": 2}
    problem = only_problem(tree)
    assert (problem.path, "cannot hold the 3 replicates" in problem.message) == ("cohort.size", True)


def test_a_fixed_list_states_every_parameter_within_its_range(tree: dict[str, Any], problems: Problems) -> None:
    tree = with_space(tree, lr={"float": [1e-4, 1e-3]})
    tree["search"] = {
        "sampler": "fixed",
        "fixed": [
            {"sae.architecture": "topk", "lr": 1e-3},
            {"sae.architecture": "topk"},
            {"sae.architecture": "topk", "lr": 1.0},
        ],
    }
    found = {p.path: p.message for p in problems(tree)}
    assert set(found) == {"search.fixed[1]", "search.fixed[2].lr"}
    assert "lacks lr" in found["search.fixed[1]"]
    assert "outside the space" in found["search.fixed[2].lr"]


def test_when_on_a_value_that_never_occurs(tree: dict[str, Any], only_problem: One) -> None:
    spec = {"float": [1e-4, 1e-3], "when": {"sae.architecture": ["topk", "gatd"]}}
    problem = only_problem(with_space(tree, lr=spec))
    assert problem.path == "space.lr.when.sae.architecture[1]"
    assert "is never 'gatd'; did you mean 'gated'? (values: topk, gated, standard)" in problem.message


def test_when_on_an_architecture_without_the_field(tree: dict[str, Any], only_problem: One) -> None:
    problem = only_problem(with_space(tree, sae__k={"int": [1, 8], "when": {"sae.architecture": "gated"}}))
    assert "gated has no k" in problem.message


def test_when_on_a_real_range(tree: dict[str, Any], only_problem: One) -> None:
    ranges = {"lr": {"float": [1e-4, 1e-3]}, "adam_beta1": {"choice": [0.0, 0.9], "when": {"lr": 1e-4}}}
    assert "a choice or an int only" in only_problem(with_space(tree, **ranges)).message


def test_conditions_in_a_circle(tree: dict[str, Any], problems: Problems) -> None:
    ranges = {
        "adam_beta1": {"choice": [0.0, 0.9], "when": {"adam_beta2": 0.99}},
        "adam_beta2": {"choice": [0.99, 0.999], "when": {"adam_beta1": 0.9}},
    }
    found = problems(with_space(tree, **ranges))
    assert found
    assert all("leads back to itself" in p.message for p in found)


def test_overlapping_ranges(tree: dict[str, Any], only_problem: One) -> None:
    ranges = [
        {"float": [1, 3], "when": {"sae.architecture": ["standard", "gated"]}},
        {"float": [1, 5], "when": {"sae.architecture": "gated"}},
    ]
    problem = only_problem(with_space(tree, sae__l1_coefficient=ranges))
    assert problem.path == "space.sae.l1_coefficient[1]"
    assert "for gated both this range and range 0 apply" in problem.message


def test_ranges_of_different_architectures_do_not_overlap(tree: dict[str, Any], problems: Problems) -> None:
    ranges = [
        {"float": [1, 3], "when": {"sae.architecture": "standard"}},
        {"float": [1, 5], "when": {"sae.architecture": "gated"}},
    ]
    assert problems(with_space(tree, sae__l1_coefficient=ranges)) == []


def test_a_field_of_any_architecture_in_play_may_stand_in_base(tree: dict[str, Any], problems: Problems) -> None:
    tree["base"]["sae"].update(l1_coefficient=2.0, k=8)
    assert problems(with_space(tree)) == []


def test_mistake_between_a_choice_and_a_range_is_found_in_any_order(tree: dict[str, Any], only_problem: One) -> None:
    del tree["base"]["sae"]["d_sae"]
    for widths in ([32, 4096], [4096, 32]):
        tree["space"] = {"sae.d_sae": {"choice": widths}, "sae.k": {"int": [8, 64]}}
        problem = only_problem(tree)
        assert (problem.path, "more than d_sae 32" in problem.message) == ("space.sae.k", True)


def test_mistakes_are_found_in_large_spaces_too(tree: dict[str, Any], only_problem: One) -> None:
    tree["space"] = {
        "sae.k": {"int": [8, 2048]},
        "lr": {"choice": [i * 1e-4 for i in range(1, 30)]},
        "adam_beta1": {"choice": [i / 100 for i in range(50, 99)]},
        "adam_beta2": {"choice": [i / 1000 for i in range(900, 999)]},
    }
    assert only_problem(tree).path == "space.sae.k"


def test_the_default_is_not_held_against_a_searched_field(tree: dict[str, Any], problems: Problems) -> None:
    tree["base"]["sae"]["d_sae"] = 64  # less than the default k of 100
    tree["space"] = {"sae.k": {"int": [4, 32]}}
    assert problems(tree) == []


def test_a_mistake_of_a_preset_is_shown_at_the_preset(tree: dict[str, Any], only_problem: One) -> None:
    tree["base"]["sae"]["architecture"] = "jumprelu"
    tree["base"]["lr_warm_up_steps"] = "90%"
    tree["by_architecture"] = {"jumprelu": {"preset": "anthropic-jan-2025"}}
    problem = only_problem(tree)
    assert problem.path == "by_architecture.jumprelu.preset"
    assert problem.message.startswith("with this preset, lr_decay_steps: warm-up")


def test_metrics_that_need_a_language_model(tree: dict[str, Any], problems: Problems) -> None:
    tree["base"].update(model_name=None, dataset_path="builtin:synthetic")
    tree["objective"] = {"minimize": "delta_ce", "subject_to": {"kl_div": {"max": 1}}}
    found = problems(tree)
    assert [p.path for p in found] == ["objective.minimize", "objective.subject_to.kl_div"]
    assert "needs a language model" in found[0].message


def test_grid_needs_points(tree: dict[str, Any], only_problem: One) -> None:
    tree["search"] = {"sampler": "grid"}
    tree["space"] = {"lr": {"float": [1e-4, 1e-3]}, "sae.k": {"int": [8, 16], "grid": [8, 16]}}
    problem = only_problem(tree)
    assert problem.path == "space.lr"
    assert "add grid: [...]" in problem.message


def test_sampler_by_class_path(tree: dict[str, Any], problems: Problems) -> None:
    tree["search"] = {"sampler": "optuna.samplers.GPSampler"}
    assert problems(tree) == []


def test_stratify_needs_an_unconditional_choice(tree: dict[str, Any], only_problem: One) -> None:
    ranges = {"lr": {"float": [1e-4, 1e-3]}}
    tree["search"] = {"stratify": "lr"}
    assert "is a range" in only_problem(with_space(tree, **ranges)).message
    conditional = {"sae.aux_loss_coefficient": {"choice": [0.5, 1.0]}}
    tree["search"] = {"stratify": "sae.aux_loss_coefficient"}
    assert "only under a condition" in only_problem(with_space(tree, **conditional)).message


@pytest.mark.parametrize(
    ("baseline", "path", "says"),
    [
        ({"sae.architecture": "topk", "sae.k": 640}, "sae.k", "outside the space: int [8, 64]"),
        ({"sae.architecture": "topk", "sae.k": 12}, "sae.k", "12 is outside the space: int [8, 64] in steps of 8"),
        ({"sae.architecture": "topk", "sae.k": 8.5}, "sae.k", "outside the space"),
        ({"sae.architecture": "jumprelu"}, "sae.architecture", "outside the space"),
        ({"sae.architecture": "gated", "sae.k": 8}, "sae.k", "is not sampled with sae.architecture 'gated'"),
    ],
)
def test_baselines_outside_the_space(
    tree: dict[str, Any], only_problem: One, baseline: dict[str, Any], path: str, says: str
) -> None:
    tree["search"] = {"baselines": [baseline]}
    problem = only_problem(with_space(tree, sae__k={"int": [8, 64], "step": 8}))
    assert problem.path == f"search.baselines[0].{path}"
    assert says in problem.message


def test_a_baseline_may_write_a_whole_number_as_64_point_0(tree: dict[str, Any], problems: Problems) -> None:
    tree["search"] = {"baselines": [{"sae.architecture": "topk", "sae.k": 64.0}]}
    for range_ in ({"int": [8, 64]}, {"choice": [16, 64]}):
        assert problems(with_space(tree, sae__k=range_)) == []


def test_baseline_inside_the_space(tree: dict[str, Any], problems: Problems) -> None:
    tree["search"] = {"baselines": [{"sae.architecture": "topk", "sae.k": 8}, {"sae.k": 64}]}
    assert problems(with_space(tree, sae__k={"int": [8, 64]})) == []


def test_short_runs_keep_the_default_rungs(tree: dict[str, Any]) -> None:
    tree["base"]["training_tokens"] = 100_000  # a hundred steps: 5% and 10% of it tell too little yet
    assert load_experiment(tree).rung_steps() == (20, 40, 60)


def test_one_mistake_does_not_hide_another_in_the_same_section(tree: dict[str, Any], problems: Problems) -> None:
    tree["search"] = {"sampler": "tpee", "min_probability": 1, "rungs": ["5%", "300%"], "replicates": 0}
    paths = {p.path for p in problems(tree)}
    assert paths == {"search.min_probability", "search.rungs[1]", "search.sampler", "search.replicates"}
