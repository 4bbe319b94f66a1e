"""What the contenders of `sweep.py` have in common: the experiment, its text, and the settings in SAELens' names."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from saesweep.activations.documents import open_documents
from saesweep.activations.settings import token_settings
from saesweep.activations.split import split_documents
from saesweep.activations.texts import Text
from saesweep.experiment import load_experiment
from saesweep.models.load import load_model
from saesweep.models.location import locate_model

ARCHITECTURES = ("batchtopk", "topk", "jumprelu", "gated", "standard")
MODELS = ("builtin", "stories")
MAX_L0 = 64.0
"""The objective: explained variance of the SAEs that are at least this sparse."""


def shared_folder() -> Path:
    """Return the folder of sample models and text: `SAESWEEP_SHARED`, else `shared` beside the repository."""
    return Path(os.environ.get("SAESWEEP_SHARED") or Path(__file__).resolve().parents[2] / "shared").resolve()


def experiment(name: str, *, model: str, trials: int, tokens: int, pruner: str, seed: int = 0) -> dict[str, Any]:
    """Return the experiment as a file would state it.

    Args:
        name: Of the contender.
        model: One of `MODELS`.
        trials: Number of trials, spread evenly over the architectures.
        tokens: Training tokens of each trial.
        pruner: `none` (and random settings, which every contender trains) or `rung` (and TPE).
        seed: Of the settings that are sampled.
    """
    if model == "builtin":
        d_in, d_sae, context = 128, 2048, 256
        source = {"model_name": "builtin:tiny-lm", "dataset_path": "builtin:python-docs"}
    else:
        d_in, d_sae, context = 64, 1024, 128
        shared = shared_folder()
        source = {
            "model_name": str(shared / "models" / "stories260K"),
            "dataset_path": str(shared / "text" / "stories_sampled.txt"),
        }
    scale = d_in / 128  # normalised activations have a squared norm of d_in, and the penalties compete with it
    return {
        "name": name,
        "base": {
            **source,
            "model_class_name": "AutoModelForCausalLM",
            "hook_name": "model.layers.2",
            "context_size": context,
            "exclude_special_tokens": True,
            "training_tokens": tokens,
            "train_batch_size_tokens": 4096,
            # SAELens would run the model on 1000 batches before each training, four times what it trains on here.
            "n_batches_for_norm_estimate": 8,
            "device": "cpu",
            "lr": 1e-3,
            "lr_warm_up_steps": "2%",
            "lr_decay_steps": "20%",
            "sae": {
                "architecture": "batchtopk",
                "d_in": d_in,
                "d_sae": d_sae,
                "normalize_activations": "expected_average_only_in",
            },
        },
        "by_architecture": {
            "jumprelu": {"preset": "anthropic-jan-2025", "sae.jumprelu_ste_to_input": True},
            "standard": {"sae.l1_warm_up_steps": "5%"},
            "gated": {"sae.l1_warm_up_steps": "5%"},
        },
        "space": {
            "sae.architecture": {"choice": list(ARCHITECTURES)},
            "sae.k": {"int": [8, 64], "log": True},
            "sae.l0_coefficient": {"float": [0.3 * scale, 6 * scale], "log": True},
            "sae.l1_coefficient": [
                {"float": [scale, 15 * scale], "log": True, "when": {"sae.architecture": "standard"}},
                {"float": [scale, 10 * scale], "log": True, "when": {"sae.architecture": "gated"}},
            ],
            "lr": {"float": [3e-4, 3e-3], "log": True},
        },
        "objective": {"maximize": "explained_variance", "subject_to": {"l0": {"max": MAX_L0}}},
        "evaluation": {"select_tokens": 16_000, "test_tokens": 32_000, "ce_tokens": 8_000},
        "search": {
            "trials": trials,
            "seed": seed,
            "stratify": "sae.architecture",
            "sampler": "random" if pruner == "none" else "tpe",
            "pruner": pruner,
        },
    }


def write_training_text(tree: dict[str, Any], folder: Path) -> Path:
    """Write the documents that the experiment trains on, without the held-out ones, as SAELens loads a dataset."""
    loaded = load_experiment(tree)
    run = loaded.base_run()
    documents = open_documents(run)
    model = load_model(run)
    packing, _ = token_settings(run, model.tokenizer, documents.is_tokenized, model.n_token_ids)
    evaluation = loaded.spec.evaluation
    split = split_documents(
        [Text(documents, packing)],
        model.tokenizer,
        select_tokens=evaluation.select_tokens,
        test_tokens=evaluation.test_tokens,
        seed=run.seed,
    )
    folder.mkdir(parents=True)
    with (folder / "train.jsonl").open("w") as file:
        for document in split.train[0].iterate(0, 0):
            file.write(json.dumps({"text": document}) + "\n")
    return folder


def peer_settings(run_dir: Path, dataset: Path) -> dict[int, dict[str, Any]]:
    """Return each trial of a finished run as SAELens' runner configuration, by number."""
    found = {}
    for file in sorted(run_dir.glob("trials/*/sae/runner_cfg.json")):
        cfg = json.loads(file.read_text())
        cfg["model_name"] = locate_model(cfg["model_name"]).source
        cfg["dataset_path"] = str(dataset)
        cfg["verbose"] = False
        found[int(file.parents[1].name)] = cfg
    return found
