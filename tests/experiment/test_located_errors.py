"""Every static check, through the door that users come in by: a YAML file, and the messages printed for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from saesweep.errors import ExperimentError, Problem
from saesweep.experiment import load_experiment

One = Callable[..., Problem]
Problems = Callable[..., list[Problem]]

FIVE_MISTAKES = """\
name: five
base:
  model_name: builtin:tiny-lm
  hook_name: model.layers.2
  dataset_path: builtin:python-docs
  training_tokens: 90Q
  sae: {architecture: topk, d_in: 128, d_sae: 128}
space:
  sae.k: {int: [16, 256], lgo: true}
  lr: {float: [0, 1e-3]}
objective: {minimize: deltace}
search: {sampler: tpee}
"""


def test_all_mistakes_are_reported_at_once(write: Callable[[str], Path]) -> None:
    path = write(FIVE_MISTAKES)
    with pytest.raises(ExperimentError) as caught:
        load_experiment(path)
    assert [(p.line, p.column, p.path) for p in caught.value.problems] == [
        (6, 20, "base.training_tokens"),
        (9, 27, "space.sae.k.lgo"),
        (10, 16, "space.lr.float[0]"),
        (11, 23, "objective.minimize"),
        (12, 19, "search.sampler"),
    ]
    text = str(caught.value)
    assert f"{path}:9:27: space.sae.k.lgo: unknown key 'lgo'; did you mean 'log'?\n" in text
    assert "      sae.k: {int: [16, 256], lgo: true}\n" + " " * 30 + "^\n" in text
    assert text.endswith("5 mistakes")


def change(tree: dict[str, Any], path: str, value: Any) -> None:
    """Set a value; `/` parts the keys, which hold dots themselves."""
    *parents, last = path.split("/")
    for part in parents:
        tree = tree.setdefault(part, {})
    tree[last] = value


CASES: list[tuple[str, Any, str, str]] = [
    # what is set, to what, where the problem is, what it says
    ("nmae", 1, "nmae", "did you mean 'name'"),
    ("name", "a/b", "name", "run directory"),
    ("name", "", "name", "at least 1"),
    ("name", 5, "name", "takes text, not 5"),
    ("base", 5, "base", "takes a mapping of keys, not 5"),
    ("space", None, "space", "takes a mapping of keys, not null"),
    ("lr", 1e-3, "lr", "did you mean 'base.lr'"),
    # base
    ("base/hok_name", "x", "base.hok_name", "did you mean 'hook_name'"),
    ("base/k", 5, "base.k", "sae: {k: ...}"),
    ("base/sae.k", 5, "base.sae.k", "write it nested"),
    ("base/logger", {"wandb_projct": "x"}, "base.logger.wandb_projct", "did you mean 'wandb_project'"),
    ("base/logger", 5, "base.logger", "takes a mapping"),
    ("base/lr", "1e-4", "base.lr", "take the quotes off"),
    ("base/lr", -1, "base.lr", "must be above 0, not -1"),
    ("base/lr", True, "base.lr", "takes a number, not true"),
    ("base/context_size", 1.5, "base.context_size", "takes a whole number, not 1.5"),
    ("base/seqpos_slice", [0, "x"], "base.seqpos_slice[1]", "takes a whole number"),
    ("base/lr_scheduler_name", "cosineanealing", "base.lr_scheduler_name", "did you mean 'cosineannealing'"),
    ("base/lr_warm_up_steps", 0.05, "base.lr_warm_up_steps", "a share of the run is written 5%"),
    ("base/lr_warm_up_steps", "150%", "base.lr_warm_up_steps", "outside 0% to 100%"),
    ("base/training_tokens", "90Q", "base.training_tokens", "with k, M, B or T"),
    ("base/training_tokens", 10, "base.training_tokens", "less than one batch of 1000"),
    ("base/lr_end", 1e-5, "base.lr_end", "only the cosine schedules read it"),
    ("base/buffer_tokens", 1500, "base.buffer_tokens", "less than two training batches"),
    ("base/n_checkpoints", 1000, "base.n_checkpoints", "need more steps between them than the 1000 of the run"),
    ("base/sae_compilation_mode", "default", "base.sae_compilation_mode", "set compile_sae: true"),
    ("base/output_path", "x", "base.output_path", "--run-dir"),
    ("base/dataset_path", "", "base.dataset_path", "missing"),
    ("base/model_name", None, "base.model_name", "missing"),
    ("base/model_class_name", "HookedMamba", "base.model_class_name", "not supported; known"),
    ("base/dataset_path", "builtin:synthetic", "base.model_name", "set model_name: null"),
    ("base/sae/architecture", "topkk", "base.sae.architecture", "did you mean 'topk'"),
    ("base/sae/lp_norm", 1.0, "base.sae.lp_norm", "a field of standard, and the experiment has topk"),
    ("base/sae/aux_los_coefficient", 1.0, "base.sae.aux_los_coefficient", "did you mean 'aux_loss_coefficient'"),
    ("base/sae/k", 4096, "base.sae.k", "more than d_sae 1024"),
    ("base/sae/k", 1.5, "base.sae.k", "whole number"),
    ("base/sae/expansion_factor", 4, "base.sae.expansion_factor", "d_sae is given too"),
    ("base/sae", {"architecture": "topk"}, "base.sae.d_sae", "missing; give the number of latents"),
    ("base/sae", {"architecture": "topk", "d_in": 8, "expansion_factor": 2}, "base.sae.k", "more than d_sae 16"),
    ("base/sae/normalize_activations", "layer_norm", "base.sae.normalize_activations", "auxiliary loss"),
    # by_architecture
    ("by_architecture/topkk", {}, "by_architecture.topkk", "did you mean 'topk'"),
    ("by_architecture/gated", {}, "by_architecture.gated", "not in play; the experiment has topk"),
    ("by_architecture/topk", 5, "by_architecture.topk", "takes a mapping"),
    ("by_architecture/topk", {"preset": "x"}, "by_architecture.topk.preset", "unknown preset"),
    ("by_architecture/topk", {"preset": "anthropic-jan-2025"}, "by_architecture.topk.preset", "a preset of jumprelu"),
    ("by_architecture/topk", {"sae.kk": 3}, "by_architecture.topk.sae.kk", "did you mean 'sae.k'"),
    ("by_architecture/topk", {"sae.lp_norm": 1}, "by_architecture.topk.sae.lp_norm", "a field of standard"),
    ("by_architecture/topk", {"sae.k": "x"}, "by_architecture.topk.sae.k", "whole number"),
    ("by_architecture/topk", {"sae.k": 2048}, "by_architecture.topk.sae.k", "more than d_sae"),
    ("by_architecture/topk", {"context_size": 8}, "by_architecture.topk.context_size", "cannot be set by architecture"),
    ("by_architecture/topk", {"sae": {"k": 2}, "sae.k": 3}, "by_architecture.topk.sae.k", "given twice"),
    # space
    ("space/sae.kk", {"int": [1, 2]}, "space.sae.kk", "did you mean 'sae.k'"),
    ("space/k", {"int": [1, 2]}, "space.k", "did you mean 'sae.k'"),
    ("space/foo", {"int": [1, 2]}, "space.foo", "name a field of base"),
    ("space/context_size", {"choice": [1, 2]}, "space.context_size.choice[0]", "at least 2"),
    ("space/context_size", {"int": [16, 64]}, "space.context_size.int", "write choice: [...] instead of int:"),
    ("space/seed", {"choice": [1, 2], "when": {"lr": 1e-3}}, "space.seed.when.lr", ""),
    ("space/training_tokens", {"choice": [1, 2]}, "space.training_tokens", "cannot be searched: it belongs to"),
    ("space/sae.d_in", {"choice": [1, 2]}, "space.sae.d_in", "cannot be searched"),
    ("space/sae", {"choice": [1, 2]}, "space.sae", "a block of fields"),
    ("space/sae.l1_coefficient", {"float": [1, 2]}, "space.sae.l1_coefficient", "no architecture of this experiment"),
    ("space/lr", {"float": [1e-4, 1e-3], "int": [1, 2]}, "space.lr", "has float and int"),
    ("space/lr", {"log": True}, "space.lr", "has none of them"),
    ("space/lr", [], "space.lr", "empty list"),
    ("space/lr", 5, "space.lr", "one value is not searched"),
    ("space/lr", {"float": [1e-3, 1e-4]}, "space.lr.float", "the lower bound is above the upper"),
    ("space/lr", {"float": [1e-3]}, "space.lr.float", "takes [low, high]"),
    ("space/lr", {"float": [1e-4, "x"]}, "space.lr.float[1]", "takes a number, not 'x'"),
    ("space/lr", {"float": [0, 1e-3]}, "space.lr.float[0]", "must be above 0"),
    ("space/lr", {"choice": [1e-3, "fast"]}, "space.lr.choice[1]", "takes a number, not 'fast'"),
    ("space/lr", {"choice": [1e-3, 1e-3]}, "space.lr.choice", "names a value twice"),
    ("space/lr", {"choice": []}, "space.lr.choice", "is empty"),
    ("space/lr", {"choice": [1e-3], "log": True}, "space.lr.log", "a choice has none"),
    ("space/sae.k", {"float": [1, 20]}, "space.sae.k.float", "write int: instead of float:"),
    ("space/sae.k", {"int": [0, 20]}, "space.sae.k.int[0]", "must be at least 1, not 0"),
    ("space/sae.k", {"int": [8, 2048]}, "space.sae.k", "more than d_sae 1024"),
    ("space/sae.k", {"int": [8, 32], "grid": [64]}, "space.sae.k.grid", "outside"),
    ("space/lr_scheduler_name", {"int": [1, 2]}, "space.lr_scheduler_name.int", "write choice: instead of int:"),
    ("space/lr_scheduler_name", {"choice": ["cosin"]}, "space.lr_scheduler_name.choice[0]", "not 'cosin'"),
    ("space/lr_end", {"float": [1e-5, 1e-4]}, "space.lr_end", "only the cosine schedules read it"),
    (
        "space/sae.architecture",
        {"choice": ["topk", "gatd"]},
        "space.sae.architecture.choice[1]",
        "did you mean 'gated'",
    ),
    ("space/sae.architecture", {"int": [1, 2]}, "space.sae.architecture", "takes one choice"),
    ("space/lr", {"float": [1e-4, 1e-3], "when": {"lr": 1}}, "space.lr.when.lr", "cannot depend on itself"),
    ("space/lr", {"float": [1e-4, 1e-3], "when": {"lrr": 1}}, "space.lr.when.lrr", "unknown parameter"),
    ("space/lr", {"float": [1e-4, 1e-3], "when": {"seed": 1}}, "space.lr.when.seed", "is not searched"),
    ("space/lr", {"float": [1e-4, 1e-3], "when": 3}, "space.lr.when", "takes a mapping"),
    # objective
    ("objective", {}, "objective", "exactly one of minimize, maximize, pareto; has none of them"),
    ("objective", {"minimize": "l0", "maximize": "l1"}, "objective", "several goals make a front"),
    (
        "objective",
        {"minimise": "l0", "maximize": "explained_variance"},
        "objective.minimise",
        "write minimize: l0",
    ),
    ("objective", {"minimize": "deltace"}, "objective.minimize", "did you mean 'delta_ce'"),
    ("objective", {"pareto": [{"minimize": "l0"}]}, "objective.pareto", "two or more"),
    ("objective", {"pareto": [{"minimize": "l0"}, {"maximize": "l0"}]}, "objective.pareto[1]", "goal already"),
    ("objective", {"pareto": [{"minimize": "l0"}, {}]}, "objective.pareto[1]", "takes one metric"),
    ("objective", {"pareto": [{"minimize": "l0"}, "mse"]}, "objective.pareto[1]", "write {minimize: mse}"),
    (
        "objective",
        {"minimize": "mse", "subject_to": {"l00": {"max": 3}}},
        "objective.subject_to.l00",
        "did you mean 'l0'",
    ),
    ("objective", {"minimize": "mse", "subject_to": {"l0": {}}}, "objective.subject_to.l0", "has no limit"),
    (
        "objective",
        {"minimize": "mse", "subject_to": {"l0": {"mx": 3, "min": 1}}},
        "objective.subject_to.l0.mx",
        "'max'",
    ),
    (
        "objective",
        {"minimize": "mse", "subject_to": {"l0": {"min": 4, "max": 3}}},
        "objective.subject_to.l0",
        "no trial",
    ),
    ("objective", {"minimize": "mse", "matched": {"l0": []}}, "objective.matched.l0", "is empty"),
    ("objective", {"minimize": "mse", "matched": {"l0": [32, 16]}}, "objective.matched.l0", "ascending"),
    ("objective", {"minimize": "mse", "matched": {"l0": [0, 16]}}, "objective.matched.l0", "above 0"),
    ("objective", {"minimize": "mse", "matched": {"l1": [8], "l0": [8]}}, "objective.matched.l1", "known: l0"),
    # search, evaluation, cohort
    ("search/sampler", "tpee", "search.sampler", "did you mean 'tpe'"),
    ("search/trials", 0, "search.trials", "at least 1"),
    ("search/rungs", ["20%", "5%"], "search.rungs[1]", "not after the rung before it"),
    ("search/rungs", ["5%", "100%"], "search.rungs[1]", "at or after the end"),
    ("search/rungs", [0], "search.rungs[0]", "less than one step"),
    ("search/rungs", ["5%", "x"], "search.rungs[1]", "not a duration"),
    ("search/pruner", "median", "search.pruner", "'rung' or 'none'"),
    ("search/stratify", "sae.k", "search.stratify", "not in space"),
    ("search/replicates", 0, "search.replicates", "at least 1"),
    ("search/confirm", {"top": 0}, "search.confirm.top", "at least 1"),
    ("search/confirm", {"training_tokens": "4y"}, "search.confirm.training_tokens", "4y"),
    ("search/time_budget", "2 weeks", "search.time_budget", "is not a time"),
    ("search", {"target": 0.5}, "search.target", "needs an objective of one metric"),
    ("search/sampler", "fixed", "search.sampler", "needs search.fixed"),
    ("search/fixed", [{}], "search.fixed", "needs search.sampler: fixed"),
    ("search/baselines", [{"lr": 1e-3}], "search.baselines[0].lr", "add it to space"),
    ("search/baselines", [{"training_tokens": 3}], "search.baselines[0].training_tokens", "set it under base"),
    ("search/baselines", [{"lrr": 3}], "search.baselines[0].lrr", "no field of a base run"),
    ("search/baselines", [5], "search.baselines[0]", "takes a mapping"),
    ("evaluation/select_tokens", 0, "evaluation.select_tokens", "at least 1"),
    ("evaluation/selct_tokens", 5, "evaluation.selct_tokens", "did you mean 'select_tokens'"),
    ("cohort/size", 0, "cohort.size", "at least 1"),
    ("cohort/size", "aut", "cohort.size", "a whole number or 'auto', not 'aut'; did you mean 'auto'?"),
    ("cohort/devices", "two", "cohort.devices", "takes auto, a number of GPUs, a list such as [cuda:0, cuda:1], or"),
    ("cohort/devices", ["gpu"], "cohort.devices", "not 'gpu'"),
    ("cohort/devices", [], "cohort.devices", "names no device"),
    ("cohort/devices", ["cpu", "cuda:0"], "cohort.devices", "on devices of one kind"),
    ("cohort/memory_fraction", 1.5, "cohort.memory_fraction", "at most 1"),
]


@pytest.mark.parametrize(("place", "value", "path", "says"), CASES, ids=[f"{c[0]}={c[1]}" for c in CASES])
def test_one_mistake_gives_one_message(
    tree: dict[str, Any], only_problem: One, place: str, value: Any, path: str, says: str
) -> None:
    change(tree, place, value)
    problem = only_problem(tree)
    assert problem.path == path
    assert says in problem.message


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
    ],
)
def test_a_step_that_never_reaches_the_end(tree: dict[str, Any], only_problem: One, spec: Any, says: str) -> None:
    tree = with_space(tree, **{"sae__k" if "int" in spec else "lr": spec})
    assert says in only_problem(tree).message


@pytest.mark.parametrize("spec", [{"int": [4, 16], "step": 4}, {"float": [0.1, 1.0], "step": 0.3}])
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


def with_space(tree: dict[str, Any], **ranges: Any) -> dict[str, Any]:
    tree["space"] = {
        "sae.architecture": {"choice": ["topk", "gated", "standard"]},
        **{path.replace("__", "."): spec for path, spec in ranges.items()},
    }
    return tree


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
    tree["base"]["training_tokens"] = 100_000  # a hundred steps: 5% and 10% of it tell nothing yet
    assert load_experiment(tree).rung_steps() == (60,)


def test_one_mistake_does_not_hide_another_in_the_same_section(tree: dict[str, Any], problems: Problems) -> None:
    tree["search"] = {"sampler": "tpee", "min_probability": 1, "rungs": ["5%", "300%"], "replicates": 0}
    paths = {p.path for p in problems(tree)}
    assert paths == {"search.min_probability", "search.rungs[1]", "search.sampler", "search.replicates"}
