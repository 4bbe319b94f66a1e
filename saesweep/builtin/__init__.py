"""What ships with the package, so that the main job runs on a machine without a network.

Only names and one path live here: nothing heavy is imported.
"""

from pathlib import Path

MODEL_NAME = "builtin:tiny-lm"
"""`model_name` of the small causal language model whose folder is `model_path()`."""

DATASET_DOCS = "builtin:python-docs"
"""`dataset_path` of the English text in `saesweep.builtin.text.documents()`."""

DATASET_SYNTHETIC = "builtin:synthetic"
"""`dataset_path` of generated activations with known true features; no language model."""


def model_path() -> Path:
    """Folder of the built-in language model, in Hugging Face format (weights, config, tokenizer, `card.json`)."""
    return Path(__file__).parent / "tiny_lm"


__all__ = ["DATASET_DOCS", "DATASET_SYNTHETIC", "MODEL_NAME", "model_path"]
