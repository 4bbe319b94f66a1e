"""The files beside a pre-tokenised dataset: SAELens' `sae_lens.json`, and `saesweep.json` to check a tokenizer against."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from saesweep.specs.pretokenize import PretokenizeSpec

SAELENS_FILE, SAESWEEP_FILE = "sae_lens.json", "saesweep.json"
_SAELENS_VERSION = "6.54.12"
"""The version whose format is written."""
_NOT_THE_CONTENT = frozenset(
    {"save_path", "num_proc", "hf_repo_id", "hf_num_shards", "hf_revision", "hf_is_private_repo", "seed"}
)


def saelens_metadata(spec: PretokenizeSpec, seed: int) -> dict[str, Any]:
    """Return SAELens' description of the dataset."""
    return {
        "sae_lens_version": _SAELENS_VERSION,
        "tokenizer_name": spec.tokenizer_name,
        "original_dataset": spec.dataset_path,
        "original_dataset_name": spec.dataset_name,
        "original_split": spec.split,
        "original_data_files": None if spec.data_files is None else list(spec.data_files),
        "original_column_name": spec.column_name,
        "context_size": spec.context_size,
        "shuffled": spec.shuffle,
        "seed": seed if spec.shuffle else spec.seed,
        "begin_batch_token": spec.begin_batch_token,
        "begin_sequence_token": spec.begin_sequence_token,
        "sequence_separator_token": spec.sequence_separator_token,
        "disable_concat_sequences": spec.disable_concat_sequences,
        "use_chat_formatting": spec.use_chat_formatting,
    }


def content_fields(spec: PretokenizeSpec) -> dict[str, Any]:
    """Return the fields that decide the rows, as JSON; the seed apart, which may be drawn."""
    return spec.model_dump(mode="json", exclude=set(_NOT_THE_CONTENT))


def vocabulary_sha256(tokenizer: Any) -> str:
    """Return a checksum of a tokenizer's vocabulary: two tokenizers with the same one give the same ids."""
    return hashlib.sha256(json.dumps(sorted(tokenizer.get_vocab().items())).encode()).hexdigest()
