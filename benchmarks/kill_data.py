"""Kills `cache-activations` and `pretokenize` at random moments and compares what they leave with an undisturbed run.

    python benchmarks/kill_data.py --kills 20

Each command writes once undisturbed, then elsewhere in processes that are killed (SIGKILL) after random times, until
one is let through. Prints one JSON line per command and exits 1 where a file differs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

CONTEXT = 64
_WORDS = (
    "the",
    "of",
    "and",
    "to",
    "in",
    "a",
    "is",
    "that",
    "it",
    "was",
    "for",
    "on",
    "are",
    "as",
    "with",
    "they",
    "be",
)
EXPERIMENT = """\
name: killed
base:
  model_name: builtin:tiny-lm
  hook_name: model.layers.1
  dataset_path: {texts}
  streaming: false
  context_size: 64
  training_tokens: {tokens}
  train_batch_size_tokens: 512
  store_batch_size_prompts: 8
  buffer_tokens: 8k
  device: cpu
  sae: {{architecture: topk, k: 8, d_in: 128, d_sae: 256}}
evaluation: {{select_tokens: 2k, test_tokens: 2k}}
"""


def main() -> int:
    """Run both commands; return 1 where a file differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, help="processes killed per command")
    parser.add_argument("--tokens", type=int, default=65_536, help="rows of the cache")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    args = parser.parse_args()
    _import_everything()
    moments = random.Random(args.seed)
    equal = True
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        texts = root / "texts.jsonl"
        texts.write_text("".join(json.dumps({"text": _text(number)}) + "\n" for number in range(1000)))
        (root / "experiment.yaml").write_text(EXPERIMENT.format(tokens=args.tokens, texts=texts))
        cache = ["cache-activations", str(root / "experiment.yaml"), "--shard-size", "1M", "--to"]
        tokens = ["pretokenize", "--tokenizer_name", "builtin:tiny-lm", "--dataset_path", str(texts)]
        tokens += ["--context_size", str(CONTEXT), "--seed", "1", "--pretokenize_batch_size", "50", "--save_path"]
        for command in (cache, tokens):
            whole, killed = root / f"{command[0]}-whole", root / f"{command[0]}-killed"
            seconds = _undisturbed([*command, str(whole)])
            files = _files(whole)
            same = _killed([*command, str(killed)], args.kills, 0.6 * seconds, moments, files)
            equal = equal and same and bool(files)
            print(json.dumps({"command": command[0], "kills": args.kills, "files": len(files), "identical": same}))
    return 0 if equal else 1


def _import_everything() -> None:
    """Import what every process needs, so that they are killed at work and not at their start."""
    import datasets  # noqa: F401
    import torch
    from transformers import AutoConfig, AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast  # noqa: F401

    import saesweep.activations.cache.writer
    import saesweep.activations.pretokenize  # noqa: F401
    from saesweep.activations.pretokenize import run

    torch.set_num_threads(1)  # a fork of a process that has run parallel code can hang
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    run.PART_TOKENS = 50_000


def _text(number: int) -> str:
    words = random.Random(number)
    return " ".join(words.choice(_WORDS) for _ in range(words.randrange(20, 200)))


def _undisturbed(argv: list[str]) -> float:
    started = time.monotonic()
    pid = _start(argv)
    _, status = os.waitpid(pid, 0)
    if status != 0:
        raise SystemExit(f"{argv[0]} failed undisturbed")
    return time.monotonic() - started


def _killed(argv: list[str], wanted: int, seconds: float, moments: random.Random, whole: dict[str, bytes]) -> bool:
    """Kill `wanted` processes; one that ends before its moment is compared, and writing begins anew."""
    target = Path(argv[-1])
    kills, same = 0, True
    while True:
        pid = _start(argv)
        if kills < wanted:
            time.sleep(moments.uniform(0, seconds))
            if os.waitpid(pid, os.WNOHANG) == (0, 0):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                kills += 1
                continue
        elif os.waitpid(pid, 0)[1] != 0:
            raise SystemExit(f"{argv[0]} failed after {kills} kills")
        same = same and _files(target) == whole
        if kills == wanted:
            return same
        shutil.rmtree(target)


def _start(argv: list[str]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        from saesweep.cli import main as saesweep

        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, sys.stdout.fileno())
        code = saesweep(argv)
    finally:
        os._exit(code)


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if not path.name.startswith(".")}


if __name__ == "__main__":
    sys.exit(main())
