"""A small run on a random Llama and random words, and what a cache of it looks like."""

import json
import random
from pathlib import Path
from typing import Any

from saesweep.activations.cache.manifest import Manifest
from saesweep.activations.cache.writer import write_cache
from saesweep.specs import EvaluationSpec
from tests.models.tiny import run_of

HOOKS = ("model.layers.0", "model.layers.1")
EVALUATION = EvaluationSpec(select_tokens=256, test_tokens=256)
TOKENS = 2048
SHARD_BYTES = 64 << 10


def save_texts(path: Path) -> Path:
    words = random.Random(0)
    lines = [" ".join(f"w{words.randrange(120)}" for _ in range(words.randrange(20, 60))) for _ in range(300)]
    path.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    return path


def cached_run(llama: Path, texts: Path, **fields: Any) -> Any:
    values = {"model_name": str(llama), "dataset_path": str(texts), "streaming": False, "exclude_special_tokens": True}
    return run_of(**{**values, **fields})


def write(run: Any, folder: Path, **options: Any) -> Manifest:
    return write_cache(run, EVALUATION, HOOKS, folder, **{"tokens": TOKENS, "shard_bytes": SHARD_BYTES, **options})


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != ".lock"}
