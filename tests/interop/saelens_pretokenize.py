"""Records the rows that SAELens' PretokenizeRunner writes, in tests/activations/pretokenize/saelens_rows.json.

    PYTHONPATH=. .venv-bench/bin/python tests/interop/saelens_pretokenize.py > tests/activations/pretokenize/saelens_rows.json

Tokenizers that add nothing, BOS (as Llama's does), or BOS and EOS by themselves; every way of marking and joining documents; batches of
documents of 7, and all of them at once. `tests/activations/pretokenize/test_saelens_rows.py` compares saesweep with that.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import random
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

TOKENIZERS = {"plain": "$A", "bos": "<s> $A", "bos-eos": "<s> $A </s>"}
BASE: dict[str, Any] = {"context_size": 16, "shuffle": False, "num_proc": 1}
VARIANTS: list[dict[str, Any]] = [
    {},
    {"sequence_separator_token": "eos"},
    {"sequence_separator_token": None},
    {"begin_batch_token": None},
    {"begin_batch_token": None, "sequence_separator_token": None},
    {"begin_sequence_token": "bos", "sequence_separator_token": None},
    {"begin_sequence_token": "bos", "begin_batch_token": "eos", "sequence_separator_token": "eos"},
    {"disable_concat_sequences": True},
    {"disable_concat_sequences": True, "begin_batch_token": None, "sequence_separator_token": None},
    {"pretokenize_batch_size": 7},
    {"pretokenize_batch_size": None, "sequence_separator_token": "eos"},
]


def documents() -> list[str]:
    """Return short and long documents of words, an empty one among them."""
    rng = random.Random(0)
    texts = [
        " ".join(f"w{rng.randrange(120)}" for _ in range(rng.choice([1, 3, 14, 15, 16, 17, 40]))) for _ in range(40)
    ]
    return [*texts[:20], "", *texts[20:]]


def save_tokenizer(folder: Path, template: str) -> None:
    """Write a word-level tokenizer that adds by itself what the template says."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocab = {word: index for index, word in enumerate(["<unk>", "<s>", "</s>", *(f"w{n}" for n in range(120))])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = [(token, vocab[token]) for token in ("<s>", "</s>") if token in template]
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=special)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)


def main() -> None:
    """Print the record as JSON."""
    import sae_lens
    from sae_lens import PretokenizeRunner, PretokenizeRunnerConfig

    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    found = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in documents()))
        for tokenizer, template in TOKENIZERS.items():
            save_tokenizer(root / tokenizer, template)
            for variant in VARIANTS:
                cfg = PretokenizeRunnerConfig(
                    **BASE | variant,
                    tokenizer_name=str(root / tokenizer),
                    dataset_path="json",
                    data_files=[str(root / "texts.jsonl")],
                )
                with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                    rows = PretokenizeRunner(cfg).run().with_format(None)["input_ids"][:]
                found.append({"tokenizer": tokenizer, "options": variant, "rows": rows})
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in found)
    command = "tests/interop/saelens_pretokenize.py > tests/activations/pretokenize/saelens_rows.json"
    sys.stdout.write(f'{{"version": "{sae_lens.__version__}", "command": "{command}", "cases": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
