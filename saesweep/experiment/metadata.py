"""What the metadata of a published SAE say about the run that trained it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saesweep.experiment.fields import run_fields

METADATA_FIELDS = (
    "model_name",
    "model_class_name",
    "hook_name",
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


def run_of_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the run as far as they are known.

    In our exports the block `saesweep` has the run's own model class and hook, which need not be those that SAELens
    loads the model with, and the fields that SAELens has no name for.
    """
    found = {name: metadata.get(name) for name in METADATA_FIELDS}
    own = metadata.get("saesweep")
    if isinstance(own, dict):
        found |= {name: own[name] for name in run_fields() if name in own}
    # Null stands for the default everywhere else; here it means that documents are joined without a token.
    no_separator = "sequence_separator_token" in metadata and found["sequence_separator_token"] is None
    known = {name: value for name, value in found.items() if value is not None}
    return {**known, "sequence_separator_token": None} if no_separator else known
