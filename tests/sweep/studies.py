"""A small experiment, and what must be equal between two runs of the same experiment, to the last bit."""

import hashlib
import json
import random
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from saesweep.events import BlockDone, Event
from tests.models.tiny import WORDS, save_llama


def stopping_at(block: int) -> Callable[[Event], None]:
    """Return a listener that interrupts the run, as Ctrl-C does, once this block is done."""

    def listen(event: Event) -> None:
        if isinstance(event, BlockDone) and event.block == block:
            signal.raise_signal(signal.SIGINT)

    return listen


def snapshot(run_dir: Path) -> dict[str, Any]:
    """Return everything about a finished run that neither clock nor folder may change."""
    board = json.loads((run_dir / "leaderboard.json").read_text())
    connection = sqlite3.connect(run_dir / "study.db")
    try:
        study = {
            name: connection.execute(query).fetchall()
            for name, query in {
                "trials": "select number, state from trials order by number",
                "params": "select number, param_name, param_value from trial_params join trials using (trial_id) order by 1, 2",
                "values": "select number, objective, value from trial_values join trials using (trial_id) order by 1, 2",
                "rungs": "select number, step, intermediate_value from trial_intermediate_values join trials using (trial_id) order by 1, 2",
                "attrs": "select number, key, value_json from trial_user_attributes join trials using (trial_id) order by 1, 2",
            }.items()
        }
    finally:
        connection.close()
    weights = {
        str(path.relative_to(run_dir)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(run_dir.rglob("*.safetensors"))
        if "checkpoints" not in path.parts
    }
    logs = {str(p.relative_to(run_dir)): p.read_text() for p in sorted(run_dir.glob("trials/*/metrics.jsonl"))}
    return {"rows": board["rows"], "best": board["best"], "study": study, "weights": weights, "logs": logs}


def small_sweep() -> dict[str, Any]:
    """Return an experiment on synthetic activations that runs in two seconds of a processor."""
    return {
        "name": "tiny",
        "base": {
            "model_name": None,
            "hook_name": "synthetic",
            "dataset_path": "builtin:synthetic",
            "training_tokens": 10_240,
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
        "search": {
            "trials": 10,
            "stratify": "sae.architecture",
            "rungs": ["12.5%", "50%"],
            "min_rung_steps": 5,
            "min_probability": 0.3,
        },
        "cohort": {"size": 4, "checkpoint_seconds": 0},
    }


def llama_sweep(folder: Path, name: str, **base: Any) -> dict[str, Any]:
    """Return a grid on a random Llama and random words, both written to `folder`: 100 steps of each trial in one cohort."""
    (folder / "model").mkdir()
    rng = random.Random(0)
    text = folder / "text.txt"
    text.write_text("\n".join(" ".join(rng.choices(WORDS, k=60)) for _ in range(300)))
    return {
        "name": name,
        "base": {
            "model_name": str(save_llama(folder / "model")),
            "dataset_path": str(text),
            "streaming": False,
            "context_size": 16,
            "training_tokens": 12_800,
            "train_batch_size_tokens": 128,
            "buffer_tokens": 1024,
            "store_batch_size_prompts": 8,
            "lr": 3e-3,
            "device": "cpu",
            **base,
        },
        "evaluation": {"select_tokens": 512, "test_tokens": 512},
        "search": {"sampler": "grid", "rungs": []},
        "cohort": {"size": 8, "checkpoint_seconds": 0},
    }
