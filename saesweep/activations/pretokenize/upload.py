"""Uploads a pre-tokenised dataset to the Hub, as SAELens does: Parquet files and `sae_lens.json`."""

from __future__ import annotations

from pathlib import Path

from saesweep.activations.pretokenize.metadata import SAELENS_FILE, SAESWEEP_FILE
from saesweep.errors import UserError
from saesweep.specs.pretokenize import PretokenizeSpec


def upload(spec: PretokenizeSpec, folder: Path) -> None:
    """Upload the dataset in `folder` to `spec.hf_repo_id`.

    Raises:
        UserError: It could not be uploaded; the folder is complete and the same command tries again.
    """
    import datasets
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

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
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"hf_repo_id: {spec.hf_repo_id} could not be uploaded: {reason}. The dataset is complete in {folder}; "
            "run the same command again to upload it"
        ) from error
