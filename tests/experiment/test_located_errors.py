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
    ("name", "", "name", "must have a length of at least 1, not 0"),
    ("name", "x" * 81, "name", "must have a length of at most 80, not 81"),
    ("name", "a\ud800", "name", "takes text, not"),
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
    ("base/lr_warm_up_steps", "9" * 400 + "tok", "base.lr_warm_up_steps", "is too large; whole numbers go up to"),
    ("base/lr_warm_up_steps", "9" * 400, "base.lr_warm_up_steps", "is too large"),
    ("base/lr_warm_up_steps", 1e300, "base.lr_warm_up_steps", "e+300 is too large"),
    ("base/training_tokens", "9" * 5000 + "k", "base.training_tokens", "e+5003 is too large"),
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
    ("search/confirm", {"training_tokens": 10}, "search.confirm.training_tokens", "10 is less than one batch of 1000"),
    ("search/confirm", {"training_tokens": "0.0001x"}, "search.confirm.training_tokens", "less than one batch of 1000"),
    ("search/confirm", {"training_tokens": "1" * 400 + "x"}, "search.confirm.training_tokens", "is too large"),
    ("search/confirm", {"training_tokens": f"{2**62}x"}, "search.confirm.training_tokens", "is too large"),
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
