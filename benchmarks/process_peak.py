"""The peak of a whole run's process against what `plan` says, on a model with a vocabulary of 262,144 tokens.

    python benchmarks/process_peak.py FOLDER
    python benchmarks/process_peak.py FOLDER --model MODEL --hook model.layers.1 --dataset TEXT

Writes a small Gemma 2 with random weights where no model is named, and runs one trial in a process of its own: training, held-out metrics at default
settings, export. Exits 1 where the peak is above 3 GB, or `plan` is off by more than a tenth.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

MAX_GB, MAX_OFF = 3.0, 0.1


def write_model(folder: Path) -> str:
    """Write a small model with Gemma's vocabulary and soft-capping."""
    import torch
    from transformers import Gemma2Config, Gemma2ForCausalLM

    from tests.models.tiny import save_tokenizer

    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=262_144,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=256,
        final_logit_softcapping=30.0,
    )
    Gemma2ForCausalLM(config).save_pretrained(folder)
    save_tokenizer(folder)
    return str(folder)


def experiment(model: str, hook: str, dataset: str, training_tokens: int) -> dict[str, Any]:
    """Return one run at default settings."""
    return {
        "name": "peak",
        "base": {
            "model_name": model,
            "hook_name": hook,
            "dataset_path": dataset,
            "context_size": 256,
            "training_tokens": training_tokens,
            "device": "cpu",
            "sae": {"architecture": "topk", "d_sae": 256, "k": 16},
        },
        "space": {},
    }


def saesweep(*words: str) -> tuple[str, int]:
    """Run the command in a process of its own; return what it printed and the most memory it took, in bytes."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-m", "saesweep", *words], stdout=subprocess.PIPE, text=True, env=env)
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"saesweep {' '.join(words)} failed:\n{said}")
    return said, usage.ru_maxrss * 1024


def main() -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where model and run go; made")
    parser.add_argument("--model", help="a folder or a Hub id (default: a model that is written)")
    parser.add_argument("--hook", default="model.layers.1", help="where to train (default: model.layers.1)")
    parser.add_argument(
        "--dataset", default="builtin:python-docs", help="text to train on (default: builtin:python-docs)"
    )
    parser.add_argument("--tokens", type=int, default=8192, help="training tokens: the peak does not depend on them")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    model = args.model or write_model(args.folder / "model")
    file = args.folder / "peak.yaml"
    file.write_text(json.dumps(experiment(model, args.hook, args.dataset, args.tokens)))
    planned = json.loads(saesweep("plan", str(file), "--json")[0])["peak_bytes"]
    _, peak = saesweep("run", str(file), "--run-dir", str(args.folder / "run"), "--display", "none")
    off = planned / peak - 1
    print(f"peak {peak / 1e9:.2f} GB, planned {planned / 1e9:.2f} GB ({off:+.1%})")
    return int(peak > MAX_GB * 1e9 or abs(off) > MAX_OFF)


if __name__ == "__main__":
    sys.exit(main())
