"""A small experiment on synthetic activations: the whole product in a few seconds."""

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def tree() -> dict[str, Any]:
    return {
        "name": "tiny",
        "base": {
            "model_name": None,
            "hook_name": "synthetic",
            "dataset_path": "builtin:synthetic",
            "training_tokens": 20_480,
            "train_batch_size_tokens": 256,
            "lr": 3e-3,
            "lr_decay_steps": "20%",
            "device": "cpu",
            "sae": {"d_in": 32, "d_sae": 128, "normalize_activations": "expected_average_only_in"},
        },
        "by_architecture": {"jumprelu": {"preset": "anthropic-jan-2025", "sae.jumprelu_ste_to_input": True}},
        "space": {
            "sae.architecture": {"choice": ["topk", "batchtopk", "jumprelu", "standard"]},
            "sae.k": {"int": [2, 32], "log": True},
            "sae.l0_coefficient": {"float": [0.1, 3.0], "log": True},
            "sae.l1_coefficient": {"float": [0.3, 10.0], "log": True},
            "lr": {"float": [1e-3, 1e-2], "log": True},
        },
        "evaluation": {"select_tokens": 2048, "test_tokens": 2048},
        "search": {"trials": 10, "stratify": "sae.architecture", "rungs": ["12.5%", "50%"], "eta": 2},
        "cohort": {"size": 4, "checkpoint_seconds": 0},
    }


@pytest.fixture
def experiment_file(tree: dict[str, Any], tmp_path: Path) -> Path:
    from saesweep.experiment import dump_yaml

    path = tmp_path / "tiny.yaml"
    path.write_text(dump_yaml(tree))
    return path
