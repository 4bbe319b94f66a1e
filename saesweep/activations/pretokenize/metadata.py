"""What goes with a pre-tokenised dataset: SAELens' `sae_lens.json`, `saesweep.json` to check a tokenizer against, and its upload to the Hub."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saesweep.errors import UserError, first_line
from saesweep.hub import http_error
from saesweep.models.pretrained import quiet
from saesweep.specs.pretokenize import PretokenizeSpec

if TYPE_CHECKING:
    from saesweep.specs.base_run import BaseRun

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


def check_vocabulary(run: BaseRun, tokenizer: Any, block: str = "base.") -> tuple[str, ...]:
    """Compare the model's tokenizer with the one that a pre-tokenised dataset was made with, as far as it says.

    Returns:
        What to tell the user where the tokenizers cannot be compared.

    Raises:
        UserError: Their vocabularies differ.
    """
    own_file = _read(run, SAESWEEP_FILE)
    if own_file is not None:
        name = str(own_file["fields"]["tokenizer_name"])
        recorded_sha256: str | None = own_file["tokenizer_sha256"]
    else:
        made_by_saelens = _read(run, SAELENS_FILE)
        name = "" if made_by_saelens is None else str(made_by_saelens["tokenizer_name"])
        if name in ("", run.model_name):
            return ()
        recorded_sha256 = _vocabulary_of(name)
    if recorded_sha256 is None:
        return (
            f"{block}dataset_path: {run.dataset_path} was tokenised with {name!r}, which cannot be had to compare; make sure "
            f"that its vocabulary is that of {run.model_name}",
        )
    if recorded_sha256 != vocabulary_sha256(tokenizer):
        raise UserError(
            f"{block}dataset_path: {run.dataset_path} was tokenised with {name!r}, whose vocabulary is not that of "
            f"{run.model_name}; tokenise it again with `saesweep pretokenize --tokenizer_name {run.model_name}`"
        )
    return ()


def _read(run: BaseRun, name: str) -> dict[str, Any] | None:
    """Return a JSON file beside the dataset, in its folder or its Hub repository; None where there is none."""
    folder = Path(run.dataset_path).expanduser()
    if folder.exists():
        file = folder / name
        return json.loads(file.read_text()) if file.is_file() else None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HFValidationError

    try:
        found = hf_hub_download(run.dataset_path, name, repo_type="dataset", etag_timeout=5)
        data: dict[str, Any] = json.loads(Path(found).read_text())
    except (http_error(), HFValidationError, OSError, ValueError):
        return None
    return data


def _vocabulary_of(name: str) -> str | None:
    from transformers import AutoTokenizer

    try:
        with quiet():
            return vocabulary_sha256(AutoTokenizer.from_pretrained(name))
    except (OSError, ValueError):
        return None


def upload(spec: PretokenizeSpec, folder: Path) -> None:
    """Upload the dataset in `folder` to `spec.hf_repo_id`.

    Raises:
        UserError: It could not be uploaded; the folder is complete and the same command tries again.
    """
    import datasets
    from huggingface_hub import HfApi

    assert spec.hf_repo_id is not None
    dataset = datasets.load_from_disk(str(folder))
    try:
        dataset.push_to_hub(
            repo_id=spec.hf_repo_id,
            num_shards=min(spec.hf_num_shards, len(dataset)),
            private=spec.hf_is_private_repo,
            revision=spec.hf_revision,
        )
        for file in (SAELENS_FILE, SAESWEEP_FILE):
            HfApi().upload_file(
                path_or_fileobj=folder / file,
                path_in_repo=file,
                repo_id=spec.hf_repo_id,
                repo_type="dataset",
                revision=spec.hf_revision,
                commit_message=f"Add {file}",
            )
    except (http_error(), OSError, ValueError) as error:
        reason = first_line(error)
        raise UserError(
            f"hf_repo_id: {spec.hf_repo_id} could not be uploaded: {reason}. The dataset is complete in {folder}; "
            "run the same command again to upload it"
        ) from error
