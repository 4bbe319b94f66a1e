"""How fast activations are collected and shuffled, against SAELens' ActivationsStore, with memory and rows copied.

    make bench-env                                     # once: the peer, in an environment of its own
    .venv/bin/python benchmarks/activations.py
    .venv/bin/python benchmarks/activations.py --quick  # a smoke check with a small buffer

The same random model (4 layers, d_model 512), hook, text, forward batch, training batch and buffer for both, each in its
own process; they take turns, and a ratio is taken within each round. `collect` is tokenising, the model's forward passes
and the shuffle; `shuffle` is the buffer alone, fed with rows that cost nothing. Without a peer: `--subjects saesweep`.
With `--prefetch` our model also runs while the peer has its turn, up to one chunk: make turns long (`--collect-batches`).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from subject import Subject

HERE = Path(__file__).resolve().parent


def start(subject: str, setup: dict[str, Any], peer_python: str) -> Subject:
    """Start a subject in its own process."""
    python = sys.executable if subject == "saesweep" else peer_python
    command = [python, str(HERE / "activations_worker.py"), subject, json.dumps(setup)]
    return Subject(subject, command, ours=subject == "saesweep")


def write_inputs(folder: Path, d_in: int) -> dict[str, str]:
    """Write the model and the text that both subjects read."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from saesweep import builtin
    from saesweep.builtin.text import documents

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(builtin.model_path())
    config = LlamaConfig(
        hidden_size=d_in,
        intermediate_size=4 * d_in,
        num_hidden_layers=4,
        num_attention_heads=8,
        vocab_size=len(tokenizer),
        max_position_embeddings=512,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    text = folder / "text.jsonl"
    text.write_text("".join(json.dumps({"text": document}) + "\n" for document in documents()))
    return {"model": str(folder / "model"), "dataset": str(text)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peer-python", default=str(HERE.parent / ".venv-bench" / "bin" / "python"))
    parser.add_argument("--subjects", default="saesweep,saelens")
    parser.add_argument("--buffer-rows", type=int, default=262_144)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--collect-batches", type=int, default=0, help="per turn; half a buffer when left out")
    parser.add_argument("--prefetch", action="store_true", help="run our model ahead on its own thread")
    parser.add_argument("--quick", action="store_true", help="buffer of 16k rows, d_model 128, 2 rounds")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    args = parser.parse_args()
    if args.quick:
        args.buffer_rows, args.rounds = 16_384, 2
    setup: dict[str, Any] = {
        "d_in": 128 if args.quick else 512,
        "context_size": 128,
        "contexts": 32,
        "batch": 4096,
        "buffer": args.buffer_rows,
        "prefetch": args.prefetch,
    }
    turns: dict[str, dict[str, list[dict[str, float]]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        setup |= write_inputs(Path(folder), setup["d_in"])
        workers = [start(subject, setup, args.peer_python) for subject in args.subjects.split(",")]
        # Whole buffers, so that every turn holds the same share of refills.
        n_batches = {
            "collect": args.collect_batches or max(1, args.buffer_rows // setup["batch"] // 2),
            "shuffle": 4 * args.buffer_rows // setup["batch"],
        }
        for _ in range(args.rounds):
            for command, count in n_batches.items():
                for worker in workers:
                    of_subject = turns.setdefault(worker.name, {"collect": [], "shuffle": []})
                    of_subject[command].append(worker.ask(f"{command} {count}"))
        for worker in workers:
            worker.close()
    result = figures(setup, {w.name: w.about for w in workers}, turns, n_batches)
    print(json.dumps(result, indent=2))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


def figures(
    setup: dict[str, Any],
    about: dict[str, dict[str, float]],
    turns: dict[str, dict[str, list[dict[str, float]]]],
    n_batches: dict[str, int],
) -> dict[str, Any]:
    """Reduce the turns to medians, and to ratios within rounds."""
    subjects = {
        subject: {
            **about[subject],
            **{
                f"{command}_rows_per_second": round(
                    n_batches[command] * setup["batch"] / statistics.median(t["seconds"] for t in found)
                )
                for command, found in of_subject.items()
            },
        }
        for subject, of_subject in turns.items()
    }
    result: dict[str, Any] = {"setup": {k: v for k, v in setup.items() if k not in ("model", "dataset")}}
    result["subjects"] = subjects
    if {"saesweep", "saelens"} <= turns.keys():
        for command in n_batches:
            pairs = zip(turns["saelens"][command], turns["saesweep"][command], strict=True)
            result[f"{command}_ratio"] = statistics.median(
                theirs["seconds"] / ours["seconds"] for theirs, ours in pairs
            )
    return result


if __name__ == "__main__":
    main()
