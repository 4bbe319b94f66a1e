"""What `saesweep pretokenize` does, in the fields of SAELens' `PretokenizeRunnerConfig`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from saesweep.specs.model import Spec

SpecialToken = int | Literal["bos", "eos", "sep"] | None


def _files(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class PretokenizeSpec(Spec):
    """A dataset to tokenise and pack once. Field names and meanings are SAELens'; `save_path` is required."""

    tokenizer_name: str = "gpt2"
    """Hub id or folder of the tokenizer (of a model), or `builtin:tiny-lm`."""
    dataset_path: str = ""
    """Hub id, local file, folder or glob, or `builtin:python-docs`."""
    dataset_name: str | None = None
    """Configuration of the dataset."""
    dataset_trust_remote_code: bool | None = None
    """Refused: datasets 4 and newer run no remote code."""
    split: str = "train"
    """Split of the dataset, such as `train`, `train[:10%]` (not of a stream) or `train+validation`."""
    data_files: Annotated[tuple[str, ...] | None, BeforeValidator(_files)] = None
    """Only these files (or globs) of the dataset."""
    data_dir: str | None = None
    """Only this folder of the dataset."""
    num_proc: int = Field(1, ge=1)
    """Processes that tokenise. One is right for fast tokenizers, which use every core by themselves; SAELens' default is 4."""
    context_size: int = Field(128, ge=2)
    """Tokens per row."""
    column_name: str = "text"
    """Column with the text, or with conversations."""
    use_chat_formatting: bool = False
    """Format conversations with the tokenizer's chat template; plain text counts as one message of a user."""
    shuffle: bool = True
    """Shuffle the rows of the result."""
    seed: int | None = Field(None, ge=0)
    """Seed of the shuffle; drawn, and noted in `sae_lens.json`, when left out."""
    streaming: bool = False
    """Read a Hub dataset as a stream instead of downloading it first."""
    pretokenize_batch_size: int | None = Field(1000, ge=1)
    """Documents that are packed together (null: all of them); what does not fill a row at their end is dropped, as in SAELens."""
    begin_batch_token: SpecialToken = "bos"
    """First token of every row."""
    begin_sequence_token: SpecialToken = None
    """First token of every document."""
    sequence_separator_token: SpecialToken = "bos"
    """Token between two documents of one row."""
    disable_concat_sequences: bool = False
    """One document per row; shorter documents are dropped, longer ones cut."""
    save_path: str = ""
    """Folder to write."""
    hf_repo_id: str | None = None
    """Also upload to this dataset repository of the Hub."""
    hf_num_shards: int = Field(64, ge=1)
    """Files of the upload."""
    hf_revision: str = "main"
    """Branch of the upload."""
    hf_is_private_repo: bool = False
    """Make the repository private."""

    def problems(self) -> list[tuple[str, str]]:
        """Return mistakes as (field, message)."""
        found = []
        if not self.dataset_path:
            found.append(("dataset_path", "missing; give a Hub id, a local path or builtin:python-docs"))
        if not self.save_path:
            found.append(("save_path", "missing; give the folder to write (with hf_repo_id it is uploaded as well)"))
        if self.dataset_trust_remote_code:
            found.append(("dataset_trust_remote_code", "datasets 4 and newer cannot run remote code; leave it out"))
        return found
