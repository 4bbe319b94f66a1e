"""A whole sweep on a language model of Gemma-2-2B's shape with random weights, ours and with SAELens' multi runner.

Both read the same folder and text, and train as many TopK SAEs on a small share of the tokens of a real run. Ours measures and
exports, too; its speed is that of training and of the language model together, as `costs.json` has them. SAELens' is that of
its runner's `run`, without loading.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Shape:
    """The language model and the SAEs."""

    hidden: int = 2304
    intermediate: int = 9216
    layers: int = 26
    heads: int = 8
    key_value_heads: int = 4
    head_dim: int = 256
    vocabulary: int = 256_000
    hook_layer: int = 12
    context: int = 1024
    d_sae: int = 16_384
    saes: int = 16
    batches: int = 48
    dtype: str = "bfloat16"


TINY = Shape(64, 128, 2, 4, 2, 16, 4096, 0, 128, 256, 2, 12, "float32")


def write_model(folder: Path, shape: Shape, device: str) -> None:
    """Write the model, and a tokenizer whose tokens are the first of its vocabulary."""
    import torch
    from transformers import AutoTokenizer, Gemma2Config, Gemma2ForCausalLM

    from saesweep import builtin

    config = Gemma2Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=max(shape.context, 256),
        dtype=shape.dtype,
    )
    torch.manual_seed(0)
    with torch.device(device):
        model = Gemma2ForCausalLM(config).to(getattr(torch, shape.dtype))
    model.save_pretrained(folder, max_shard_size="100GB")
    del model
    if device != "cpu":
        torch.cuda.empty_cache()  # for the processes that train
    AutoTokenizer.from_pretrained(builtin.model_path()).save_pretrained(folder)


def experiment(shape: Shape, model: Path, device: str) -> dict[str, Any]:
    """Return the sweep: all SAEs at once, k spread, nothing pruned, as little measured as possible."""
    batch = 4096 if shape.context >= 1024 else 512
    return {
        "name": "end_to_end",
        "base": {
            "model_name": str(model),
            "model_class_name": "AutoModelForCausalLM",
            "hook_name": f"model.layers.{shape.hook_layer}",
            "dataset_path": "builtin:python-docs",
            "context_size": shape.context,
            "training_tokens": shape.batches * batch,
            "train_batch_size_tokens": batch,
            "store_batch_size_prompts": 16 if shape.context >= 1024 else 4,
            "n_batches_in_buffer": 8,
            "dtype": shape.dtype,
            "autocast": True,
            "autocast_lm": shape.dtype == "bfloat16",
            "device": device,
            "lr": 3e-4,
            "sae": {"architecture": "topk", "d_sae": shape.d_sae, "k": 32, "dtype": "float32"},
        },
        "space": {"sae.k": {"choice": [32 + 2 * number for number in range(shape.saes)]}},
        "search": {"trials": shape.saes, "sampler": "grid", "pruner": "none"},
        "cohort": {"size": shape.saes, "checkpoint_seconds": 3600},  # 14 GB each
        "objective": {"maximize": "explained_variance"},
        "evaluation": {
            "select_tokens": 2 * shape.context,
            "test_tokens": 2 * shape.context,
            "ce_tokens": shape.context,
        },
    }


def place(shape: Shape) -> str | None:
    """Return where model, run and exports go: memory, if there is enough, else the usual folder for temporary files."""
    needed = 5 * shape.saes * shape.d_sae * shape.hidden * 4 + 10e9
    has_memory = os.access("/dev/shm", os.W_OK) and shutil.disk_usage("/dev/shm").free > needed
    return "/dev/shm" if has_memory else None


def measure(shape: Shape, device: str, work: Path, peer_python: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Run both sides, and yield tokens/s, SAE-tokens/s and the language model's share of each when it is done."""
    write_model(work / "model", shape, device)
    tree = experiment(shape, work / "model", device)
    file = work / "experiment.yaml"
    file.write_text(json.dumps(tree))
    mine = ours(file, work / "run", tree, shape)
    yield "ours", mine
    if peer_python is not None and "error" not in mine:
        from sweep_setup import peer_settings, write_training_text

        dataset = write_training_text(tree | {"base": tree["base"] | {"device": "cpu"}}, work / "text")
        yield "saelens_multi", theirs(peer_python, peer_settings(work / "run", dataset), work, tree, shape)


def ours(file: Path, run: Path, tree: dict[str, Any], shape: Shape) -> dict[str, Any]:
    """Return the speed of a whole `saesweep run`."""
    command = [sys.executable, "-m", "saesweep", "run", str(file), "--run-dir", str(run), "--display", "none"]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    process = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    if process.returncode != 0:
        return {"error": (process.stderr or process.stdout).strip()[-500:]}
    costs = json.loads((run / "costs.json").read_text())
    seconds = costs["training"] + costs["language_model"]
    return speed(tree, shape, seconds) | {"lm_share": costs["language_model"] / seconds, "costs": costs}


def theirs(
    python: str, settings: dict[int, dict[str, Any]], work: Path, tree: dict[str, Any], shape: Shape
) -> dict[str, Any]:
    """Return the speed of SAELens' multi runner on the same SAEs."""
    trials = [{"number": number, "cfg": cfg} for number, cfg in settings.items()]
    job = work / "multi.job"
    job.write_text(json.dumps({"trials": trials, "folder": str(work / "multi")}))
    command = [python, str(ROOT / "benchmarks" / "sweep_worker.py"), "saelens_multi", str(job)]
    process = subprocess.run(command, capture_output=True, text=True)
    if process.returncode != 0:
        return {"error": process.stderr.strip()[-500:]}
    return speed(tree, shape, json.loads(process.stdout)["once"]["train"])


def speed(tree: dict[str, Any], shape: Shape, seconds: float) -> dict[str, Any]:
    """Return tokens and SAE-tokens per second."""
    tokens = tree["base"]["training_tokens"] / seconds
    return {"seconds": seconds, "tokens_per_s": tokens, "sae_tokens_per_s": shape.saes * tokens}


if __name__ == "__main__":
    # In a process of its own, so that a limit on its time can end it: python gpu_end_to_end.py DEVICE TINY WORK PEER_PYTHON
    for entry in (ROOT, ROOT / "benchmarks"):
        sys.path.insert(0, str(entry))
    device, tiny, work, peer = sys.argv[1:]
    # What libraries print must not come between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for answer in measure(TINY if tiny == "1" else Shape(), device, Path(work), peer or None):
        print(json.dumps(answer), file=answers, flush=True)
