"""Data in both directions: SAELens trains from our pre-tokenised dataset, we train from its dataset and from its cache.

Two environments, from the root of the repository:

    .venv/bin/python tests/interop/saelens_data.py --make FOLDER
    PYTHONPATH=. path/to/saelens-env/bin/python tests/interop/saelens_data.py --saelens FOLDER
    .venv/bin/python tests/interop/saelens_data.py --train FOLDER
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

CONTEXT, D_IN, HOOK = 32, 128, "model.layers.1"
FIELDS: dict[str, Any] = {"context_size": CONTEXT, "shuffle": False, "sequence_separator_token": "eos"}


def make(folder: Path) -> None:
    """Write a dataset with our `pretokenize`, and the texts that it was made from."""
    from saesweep.activations.pretokenize import pretokenize
    from saesweep.builtin.text import documents
    from saesweep.specs.pretokenize import PretokenizeSpec

    folder.mkdir(parents=True, exist_ok=True)
    texts = folder / "texts.jsonl"
    texts.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents()[:600]))
    spec = {**FIELDS, "tokenizer_name": "builtin:tiny-lm", "dataset_path": str(texts)}
    pretokenize(PretokenizeSpec.model_validate({**spec, "save_path": str(folder / "ours")}))


def in_saelens(folder: Path) -> int:
    """Train from our dataset; write a dataset and a cache with SAELens' runners; return the number of misses."""
    import datasets
    from sae_lens import (
        CacheActivationsRunner,
        CacheActivationsRunnerConfig,
        LanguageModelSAERunnerConfig,
        LanguageModelSAETrainingRunner,
        LoggingConfig,
        PretokenizeRunner,
        PretokenizeRunnerConfig,
        TopKTrainingSAEConfig,
    )

    from saesweep.builtin import model_path

    source = {"tokenizer_name": str(model_path()), "dataset_path": "json", "data_files": [str(folder / "texts.jsonl")]}
    PretokenizeRunner(PretokenizeRunnerConfig(**FIELDS, **source, num_proc=1, save_path=str(folder / "theirs"))).run()
    ours = datasets.load_from_disk(str(folder / "ours"))
    theirs = datasets.load_from_disk(str(folder / "theirs"))
    same = ours["input_ids"][:] == theirs.with_format(None)["input_ids"][:]
    print(f"{'ok  ' if same else 'MISS'}  {len(ours)} rows equal to those of PretokenizeRunner")
    model = {"model_name": str(model_path()), "model_class_name": "AutoModelForCausalLM", "hook_name": HOOK}
    data = {"dataset_path": "given", "context_size": CONTEXT, "streaming": False}
    cfg = LanguageModelSAERunnerConfig(
        sae=TopKTrainingSAEConfig(d_in=D_IN, d_sae=256, k=8),
        **model,
        **data,
        training_tokens=20 * 256,
        train_batch_size_tokens=256,
        n_batches_in_buffer=16,
        store_batch_size_prompts=8,
        n_batches_for_norm_estimate=2,
        output_path=str(folder / "sae"),
        logger=LoggingConfig(log_to_wandb=False),
    )
    LanguageModelSAETrainingRunner(cfg, override_dataset=ours).run()
    trained = (folder / "sae" / "sae_weights.safetensors").is_file()
    print(f"{'ok  ' if trained else 'MISS'}  SAELens trained from our dataset")
    cache = CacheActivationsRunnerConfig(
        **model,
        **data,
        model_batch_size=8,
        d_in=D_IN,
        training_tokens=256 * CONTEXT,
        buffer_size_gb=0.001,
        device="cpu",
        shuffle=False,
        new_cached_activations_path=str(folder / "cache"),
    )
    CacheActivationsRunner(cache, override_dataset=ours).run()
    return int(not same) + int(not trained)


def train(folder: Path) -> int:
    """Train from the dataset and from the cache that SAELens wrote; return the number of misses."""
    import saesweep

    misses = 0
    shared: dict[str, Any] = {
        "model_name": "builtin:tiny-lm",
        "hook_name": HOOK,
        "context_size": CONTEXT,
        "streaming": False,
        "training_tokens": 40_960,
        "lr": 3e-3,
        "train_batch_size_tokens": 256,
        "device": "cpu",
        "sae": {"architecture": "topk", "d_in": D_IN, "d_sae": 256, "k": 8},
    }
    cached = {"use_cached_activations": True, "cached_activations_path": str(folder / "cache")}
    for name, fields in (("dataset", {"dataset_path": str(folder / "theirs")}), ("cache", cached)):
        tree = {
            "name": name,
            "base": {**shared, **fields},
            "space": {},
            "objective": {"maximize": "explained_variance"},
            "evaluation": {"select_tokens": 1024, "test_tokens": 1024},
        }
        result = saesweep.run(tree, run_dir=folder / f"run-{name}")
        explained = result.rows[0].metrics["explained_variance"]
        misses += not explained > 0
        print(
            f"{'ok  ' if explained > 0 else 'MISS'}  trained from the {name} of SAELens: explained variance {explained:.3f}"
        )
    return misses


def main() -> int:
    """Parse the arguments and do one of the three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--make", type=Path, metavar="FOLDER")
    parser.add_argument("--saelens", type=Path, metavar="FOLDER")
    parser.add_argument("--train", type=Path, metavar="FOLDER")
    args = parser.parse_args()
    misses = 0
    if args.make:
        make(args.make)
    if args.saelens:
        misses += in_saelens(args.saelens)
    if args.train:
        misses += train(args.train)
    return int(misses > 0)


if __name__ == "__main__":
    sys.exit(main())
