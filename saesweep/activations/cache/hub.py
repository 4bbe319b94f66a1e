"""Caches as dataset repositories of the Hugging Face Hub."""

from __future__ import annotations

import re
from pathlib import Path

from saesweep.activations.cache.manifest import read_manifest
from saesweep.errors import UserError, first_line
from saesweep.hub import http_error

_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def is_repo_id(path: str) -> bool:
    """Return whether a `cached_activations_path` that is no folder can be a Hub id."""
    return _REPO.fullmatch(path) is not None


def upload_cache(folder: Path, repo: str, *, private: bool) -> None:
    """Upload a finished cache in one commit; the repository is made if need be.

    Raises:
        UserError: It could not be uploaded; the same command tries again and sends only what is not there yet.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError

    assert read_manifest(folder) is not None
    api = HfApi()
    try:
        api.create_repo(repo, repo_type="dataset", private=private, exist_ok=True)
        api.upload_folder(
            folder_path=folder,
            repo_id=repo,
            repo_type="dataset",
            allow_patterns=["manifest.json", "*.safetensors"],
            ignore_patterns=[".*"],
            commit_message="Cached activations",
        )
    except (http_error(), HFValidationError, OSError) as error:
        raise UserError(
            f"--hf_repo_id: {repo} could not be uploaded: {first_line(error)}. The cache is complete in {folder}; run the "
            "same command again to upload it"
        ) from error


def download_cache(repo: str) -> Path:
    """Download a cache into the Hub's local cache, or find it there.

    Raises:
        UserError: It could not be downloaded.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repo, repo_type="dataset"))
    except (http_error(), LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"base.cached_activations_path: there is no folder {repo!r}, and the dataset {repo} could not be downloaded from "
            f"the Hub: {first_line(error)}. Make a cache with `saesweep cache-activations`"
        ) from error
