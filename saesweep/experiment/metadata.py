"""What the metadata of a published SAE say about the run that trained it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

METADATA_FIELDS = (
    "model_name",
    "model_class_name",
    "hook_name",
    "hook_name_out",
    "hook_head_index",
    "dataset_path",
    "context_size",
    "seqpos_slice",
    "model_from_pretrained_kwargs",
    "prepend_bos",
    "exclude_special_tokens",
    "sequence_separator_token",
    "disable_concat_sequences",
)
"""Fields of a run that SAELens writes there."""
PAIR_FIELDS = ("model_class_name", "hook_name", "hook_name_out", "model_from_pretrained_kwargs")
"""The run's own stand in the block `saesweep`: SAELens may load the model by others."""
SAESWEEP_FIELDS = (
    "dataset_name",
    "split",
    "data_files",
    "data_dir",
    "column_name",
    "datasets",
    "max_activation_norm_multiple",
    "synthetic",
)
"""Fields of a run without a name in SAELens that say which activations an SAE is for; they stand in the same block. The
schedule does not: neither does `buffer_tokens`, which means nothing without the batch. Nor is the permission to run code
read from a published file."""


def run_of_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the run as far as they are known.

    In our exports the block `saesweep` has the run's own `PAIR_FIELDS` and its `SAESWEEP_FIELDS`; anything else there is
    not read.
    """
    found = {name: metadata.get(name) for name in METADATA_FIELDS}
    own = metadata.get("saesweep")
    if isinstance(own, dict):
        found |= {name: own[name] for name in (*PAIR_FIELDS, *SAESWEEP_FIELDS) if name in own}
        if own.get("datasets"):  # SAELens' field names one of them
            del found["dataset_path"]
    # Null stands for the default everywhere else; here it means that documents are joined without a token.
    no_separator = "sequence_separator_token" in metadata and found["sequence_separator_token"] is None
    known = {name: value for name, value in found.items() if value is not None}
    return {**known, "sequence_separator_token": None} if no_separator else known
