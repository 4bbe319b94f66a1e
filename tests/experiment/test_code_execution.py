"""Loading arguments that let a model's files run code: refused everywhere but where the user's own file allows them."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from saesweep.cli import main
from saesweep.errors import ExperimentError, Problem, UserError
from saesweep.evaluation import evaluate_saes
from saesweep.experiment import dump_yaml, load_experiment
from saesweep.models import load_model
from saesweep.specs import BaseRun
from saesweep.specs.model_loading import arguments_that_run_code
from tests.experiment.conftest import TREE
from tests.fuzz.targets import Bomb
from tests.models.tiny import save_llama

ARGUMENTS: list[dict[str, Any]] = [
    {"trust_remote_code": True},
    {"trust_remote_code": "yes"},
    {"weights_only": False},
    {"weights_only": None},
    {"custom_generate": "some/repo"},
    {"allow_all_kernels": True},
    {"use_kernels": True},
    {"kernel_config": {"RMSNorm": "some/repo:RMSNorm"}},
    {"attn_implementation": "some/repo"},
    {"attn_implementation": "paged|some/repo:attention"},
    {"attn_implementation": {"text_config": "some/repo"}},
    {"experts_implementation": "some/repo"},
    {"adapter_kwargs": {"trust_remote_code": True}},
    {"config": [{"deep": {"weights_only": False}}]},
]


@pytest.mark.parametrize("kwargs", ARGUMENTS, ids=json.dumps)
def test_refused_unless_the_file_allows_it(kwargs: dict[str, Any], tree: dict[str, Any], only_problem: Any) -> None:
    tree["base"]["model_from_pretrained_kwargs"] = {"dtype": "float32", **kwargs}
    problem = only_problem(tree)
    assert problem.path == "base.model_from_pretrained_kwargs"
    assert next(iter(kwargs)) in problem.message
    assert "set base.allow_code_execution: true" in problem.message
    tree["base"]["allow_code_execution"] = True
    assert load_experiment(tree).base_run().allow_code_execution


@pytest.mark.parametrize(
    "kwargs",
    [
        {"trust_remote_code": False},
        {"weights_only": True},
        {"use_kernels": False},
        {"attn_implementation": "eager"},
        {"dtype": "bfloat16", "device_map": "auto", "quantization_config": {"load_in_8bit": True}},
    ],
    ids=json.dumps,
)
def test_harmless_arguments_need_no_permission(kwargs: dict[str, Any]) -> None:
    assert arguments_that_run_code(kwargs) == {}


def test_a_permission_that_allows_nothing_is_a_mistake(tree: dict[str, Any], only_problem: Any) -> None:
    tree["base"]["allow_code_execution"] = True
    assert only_problem(tree).path == "base.allow_code_execution"


def test_permission_is_not_imported(
    tree: dict[str, Any], tmp_path: Path, problems: Callable[..., list[Problem]]
) -> None:
    """`from_cfg` names a folder that may be a stranger's: what may run here is not for it to say."""
    stranger = copy.deepcopy(tree)
    stranger["base"] |= {"model_from_pretrained_kwargs": {"trust_remote_code": True}, "allow_code_execution": True}
    (tmp_path / "experiment.yaml").write_text(dump_yaml(stranger))
    (tmp_path / "cfg.json").write_text("{}")
    tree["base"] = {"from_cfg": str(tmp_path)}
    (problem,) = problems(tree)
    assert problem.path == "base.from_cfg"
    assert "trust_remote_code" in problem.message
    tree["base"]["allow_code_execution"] = True
    assert load_experiment(tree).base_run().allow_code_execution


def test_runner_cfg_cannot_allow_either(tree: dict[str, Any], tmp_path: Path, problems: Any) -> None:
    cfg = {**tree["base"], "model_from_pretrained_kwargs": {"weights_only": False}, "allow_code_execution": True}
    (tmp_path / "runner_cfg.json").write_text(json.dumps(cfg))
    tree["base"] = {"from_cfg": str(tmp_path / "runner_cfg.json")}
    assert [problem.path for problem in problems(tree)] == ["base.from_cfg"]


def test_the_file_beside_an_sae_cannot_allow_it(tree: dict[str, Any], write: Callable[[str], Path]) -> None:
    tree["base"] |= {"model_from_pretrained_kwargs": {"trust_remote_code": True}, "allow_code_execution": True}
    path = write(dump_yaml(tree))
    assert load_experiment(path).base_run().allow_code_execution
    with pytest.raises(ExperimentError, match="allow_code_execution"):
        load_experiment(path, is_own=False)
    allowed = load_experiment(path, is_own=False, overrides=["base.allow_code_execution=true"])
    assert allowed.base_run().allow_code_execution


def test_a_run_made_in_python_is_checked_when_it_loads(tmp_path: Path) -> None:
    fields = {
        **TREE["base"],
        "model_name": str(save_llama(tmp_path)),
        "model_from_pretrained_kwargs": {"weights_only": False},
    }
    with pytest.raises(UserError, match="weights_only opens the weights as a pickle"):
        load_model(BaseRun.model_validate(fields))


def test_a_pickle_runs_only_with_permission(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save_llama(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    canary = tmp_path / "canary"
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(canary)))
    (tmp_path / "text.txt").write_text("one two three " * 2000)
    base = {
        "model_name": str(folder),
        "hook_name": "model.layers.0",
        "dataset_path": str(tmp_path / "text.txt"),
        "model_from_pretrained_kwargs": {"weights_only": False},
        "device": "cpu",
        "training_tokens": 4096,
        "sae": {"architecture": "topk", "k": 4, "d_sae": 64},
    }
    (tmp_path / "e.yaml").write_text(json.dumps({"name": "own", "base": base}))
    assert main(["run", str(tmp_path / "e.yaml"), "--run-dir", str(tmp_path / "r")]) == 2
    assert "weights_only" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()
    assert not canary.exists()


def test_the_metadata_of_an_sae_cannot_allow_it(tmp_path: Path) -> None:
    """`eval` reads the model's loading arguments from `cfg.json`, which a stranger may have written."""
    import torch

    from saesweep.saes import ExportedSAE, save_sae_folder

    tensors = {"W_enc": torch.zeros(4, 8), "W_dec": torch.zeros(8, 4), "b_enc": torch.zeros(8), "b_dec": torch.zeros(4)}
    cfg = {"architecture": "standard", "d_in": 4, "d_sae": 8, "dtype": "float32", "metadata": {}}
    sae = ExportedSAE("standard", cfg, tensors).with_metadata(
        {
            "sae_lens_version": "6.54.12",
            "model_name": str(save_llama(tmp_path / "model")),
            "hook_name": "model.layers.0",
            "dataset_path": "builtin:python-docs",
            "model_from_pretrained_kwargs": {"trust_remote_code": True},
            "allow_code_execution": True,
        }
    )
    save_sae_folder(tmp_path / "sae", sae, sparsity_F=None)
    with pytest.raises(UserError, match=r"--set base\.allow_code_execution=true"):
        evaluate_saes([tmp_path / "sae"])
