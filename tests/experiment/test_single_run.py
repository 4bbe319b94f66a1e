"""One run from flags, a file, or a configuration: what wins, and where a mistake is shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from saesweep.errors import ExperimentError
from saesweep.experiment import load_experiment, load_single_run
from saesweep.experiment.fields import known_paths
from saesweep.experiment.single_run import run_flags

FLAGS = {
    "model_name": "builtin:tiny-lm",
    "hook_name": "model.layers.2",
    "dataset_path": "builtin:python-docs",
    "sae.architecture": "topk",
    "sae.d_in": "128",
    "sae.d_sae": "1024",
}
SWEEP = """\
name: sweep
base:
  model_name: builtin:tiny-lm
  hook_name: model.layers.2
  dataset_path: builtin:python-docs
  lr: 1e-3
  sae: {architecture: batchtopk, d_in: 128, d_sae: 1024}
by_architecture:
  jumprelu: {preset: anthropic-jan-2025}
  batchtopk: {sae.aux_loss_coefficient: 0.5}
space:
  sae.architecture: {choice: [batchtopk, jumprelu]}
  sae.k: {int: [8, 64]}
search: {trials: 8, stratify: sae.architecture}
"""


def run_of(source: Any = None, **flags: str) -> Any:
    return load_single_run(source, flags=flags).base_run()


def test_every_field_is_a_flag() -> None:
    flags = run_flags()
    assert sorted(flag.path for flag in flags) == sorted(known_paths())
    spellings = [name for flag in flags for name in (flag.path, *flag.aliases)]
    assert len(spellings) == len(set(spellings))
    assert {"k", "architecture", "sae.k", "sae.dtype", "dtype", "log_to_wandb"} <= set(spellings)
    assert all(flag.description for flag in flags)


def test_values_are_read_as_in_a_file_and_names_stay_text() -> None:
    run = run_of(
        **FLAGS,
        **{
            "training_tokens": "3M",
            "lr": "1e-4",
            "lr_warm_up_steps": "5%",
            "autocast": "true",
            "streaming": "false",
            "seqpos_slice": "[1, -1]",
            "model_from_pretrained_kwargs": "{dtype: bfloat16}",
            "sae.k": "32",
            "logger.run_name": "007",
            "llm_device": "null",
            "exclude_special_tokens": "[0, 1]",
        },
    )
    assert (run.training_tokens, run.lr, str(run.lr_warm_up_steps)) == (3_000_000, 1e-4, "5%")
    assert (run.autocast, run.streaming, run.seqpos_slice) == (True, False, (1, -1))
    assert run.model_from_pretrained_kwargs == {"dtype": "bfloat16"}
    assert (run.sae.k, run.logger.run_name, run.llm_device) == (32, "007", None)
    assert run.exclude_special_tokens == (0, 1)


def test_the_run_is_named_by_its_settings() -> None:
    first, same, other = (load_single_run(flags={**FLAGS, "lr": lr}) for lr in ("1e-4", "0.0001", "2e-4"))
    assert first.spec.name == same.spec.name != other.spec.name
    assert first.spec.name.startswith("topk-")
    assert first.fingerprint() == load_experiment(first.tree).fingerprint()
    logged = load_single_run(flags={**FLAGS, "lr": "1e-4", "logger.wandb_project": "p"})
    assert logged.spec.name == first.spec.name  # as for a resumed run: it changes nothing that is trained


def test_an_experiment_s_base_is_trained(write: Callable[[str], Path]) -> None:
    experiment = load_single_run(write(SWEEP), flags={"lr": "5e-4", "sae.k": "16"})
    run = experiment.base_run()
    assert (run.lr, run.sae.k, run.sae.architecture, run.sae.aux_loss_coefficient) == (5e-4, 16, "batchtopk", 0.5)
    assert (experiment.n_trials, experiment.spec.name) == (1, "sweep")
    assert experiment.warnings[0] == "space, search of the file: left out, its base is trained once"
    other = load_single_run(write(SWEEP), flags={"sae.architecture": "jumprelu"})
    assert other.base_run().sae.jumprelu_sparsity_loss_mode == "tanh"


def test_an_objective_at_matched_l0_compares_nothing(write: Callable[[str], Path]) -> None:
    objective = "objective: {minimize: delta_ce, matched: {l0: [8, 16, 32]}}\n"
    experiment = load_single_run(write(SWEEP + objective), flags={"sae.k": "16"})
    assert (experiment.n_trials, experiment.base_run().sae.k) == (1, 16)
    assert "objective.matched" in experiment.warnings[0]


@pytest.mark.parametrize(
    "objective", ["{maximize: seed_stability}", "{minimize: delta_ce, subject_to: {seed_stability: {min: 0.5}}}"]
)
def test_an_objective_over_seeds_is_left_out_with_the_search_that_has_them(
    objective: str, write: Callable[[str], Path]
) -> None:
    text = SWEEP.replace("trials: 8", "trials: 8, replicates: 2") + f"objective: {objective}\n"
    assert load_experiment(write(text)).spec.objective is not None
    experiment = load_single_run(write(text))
    assert (experiment.n_trials, experiment.spec.objective) == (1, None)
    assert experiment.warnings[0] == "space, search, objective of the file: left out, its base is trained once"


def test_a_file_of_base_fields_alone(write: Callable[[str], Path]) -> None:
    lines = [f"{key}: {value}" for key, value in FLAGS.items() if not key.startswith("sae.")]
    path = write("\n".join([*lines, "lr: 2e-4", "sae: {architecture: topk, d_in: 128, d_sae: 1024, k: 0}"]))
    with pytest.raises(ExperimentError) as caught:
        load_single_run(path)
    problem = caught.value.problems[0]
    assert (problem.path, problem.line) == ("base.sae.k", 5)
    experiment = load_single_run(path, flags={"sae.k": "4"})
    assert (experiment.spec.name, experiment.base_run().lr) == ("e", 2e-4)


def test_a_configuration_and_flags_over_it(tmp_path: Path) -> None:
    cfg = {"model_name": "gpt2", "hook_name": "blocks.1.hook_resid_post", "dataset_path": "some/data", "lr": 1e-3}
    path = tmp_path / "runner_cfg.json"
    path.write_text(
        json.dumps({**cfg, "n_checkpoints": 2, "sae": {"architecture": "topk", "d_in": 8, "d_sae": 32, "k": 4}})
    )
    run = run_of(**{"from_cfg": str(path), "lr": "1e-4", "sae.k": "2"})
    assert (run.model_name, run.lr, run.sae.k, run.sae.d_sae, run.n_checkpoints) == ("gpt2", 1e-4, 2, 32, 2)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"sae.k": "0"}, "--sae.k: base.sae.k: must be at least 1, not 0"),
        ({"lr": "fast"}, "--lr: base.lr: takes a number, not 'fast'"),
        ({"sae.lp_norm": "2"}, "--sae.lp_norm: base.sae.lp_norm: a field of standard, and the experiment has topk"),
        (
            {"sae.architecture": "topkk"},
            "--sae.architecture: base.sae.architecture: unknown architecture 'topkk'; did you",
        ),
        ({"model_kwargs": "{a: "}, "--model_kwargs: base.model_kwargs: not valid YAML"),
        ({"n_checkpoints": "5000"}, "--n_checkpoints: base.n_checkpoints: 5000 snapshots need more steps"),
        ({"from_cfg": "nowhere/at/all.json"}, "--from_cfg: base.from_cfg: 'nowhere/at/all.json' is neither"),
        ({"output_path": "x"}, "--output_path: base.output_path: not used by saesweep; use --run-dir"),
    ],
)
def test_a_mistake_names_its_flag(flags: dict[str, str], expected: str) -> None:
    with pytest.raises(ExperimentError) as caught:
        load_single_run(flags={**FLAGS, **flags})
    assert expected in str(caught.value)


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ExperimentError, match=r"base.dataset_path: missing; give"):
        load_single_run(flags={key: FLAGS[key] for key in FLAGS if key != "dataset_path"})
