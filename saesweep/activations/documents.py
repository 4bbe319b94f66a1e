"""Documents, wherever they come from: random access (by index) or a stream (in order)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from saesweep import builtin
from saesweep.errors import UserError

if TYPE_CHECKING:
    from saesweep.specs.base_run import BaseRun


@dataclass(frozen=True)
class Conversation:
    """Messages that the tokenizer's chat template turns into one text."""

    messages: tuple[Mapping[str, Any], ...]
    """With `role` and `content`."""


Document = str | list[int] | Conversation
"""Text, the token ids of a tokenised dataset, or a conversation."""


@dataclass(frozen=True, kw_only=True)
class MapDocuments:
    """Documents that can be read in any order."""

    name: str
    """The `dataset_path`, for messages."""
    size: int
    """Number of documents."""
    read: Callable[[Sequence[int]], list[Document]]
    """Documents at these indices, in this order."""
    is_tokenized: bool
    """Whether documents are token ids."""
    column: str | None = None
    """Column of the dataset that holds them."""


@dataclass(frozen=True, kw_only=True)
class StreamDocuments:
    """Documents that come in one order."""

    name: str
    """The `dataset_path`, for messages."""
    iterate: Callable[[int], Iterator[Document]]
    """All documents from this position on."""
    is_tokenized: bool
    """Whether documents are token ids."""
    column: str | None = None
    """Column of the dataset that holds them."""


Documents = MapDocuments | StreamDocuments


def open_documents(run: BaseRun) -> Documents:
    """Open `run.dataset_path`: `builtin:python-docs`, a local file, folder or glob, or a Hub dataset.

    Raises:
        UserError: It does not exist, cannot be read, is empty or has no column with text or tokens.
    """
    path = run.dataset_path
    if path.startswith("builtin:"):
        if path != builtin.DATASET_DOCS:
            raise UserError(f"base.dataset_path: unknown built-in text {path!r}; there is {builtin.DATASET_DOCS}")
        from saesweep.builtin.text import documents

        return _as_asked(run, from_texts(path, documents()))

    from saesweep.activations.datasets_library import open_hub, open_saved, open_tables
    from saesweep.activations.local_files import LocalKind, find_local

    local = find_local(path)
    if local is None:
        return open_hub(run)
    if local.kind is LocalKind.SAVED:
        return open_saved(run, local.files[0])
    if local.kind is LocalKind.TEXT:
        from saesweep.activations.text_lines import open_text_lines

        return _as_asked(run, open_text_lines(path, local.files))
    return open_tables(run, local.kind.value, local.files)


def _as_asked(run: BaseRun, texts: MapDocuments) -> MapDocuments:
    """Return texts as they are, or each as a user's message where chat formatting is asked for."""
    if not run.use_chat_formatting:
        return texts
    from saesweep.activations.columns import as_conversation

    def read(indices: Sequence[int]) -> list[Document]:
        return [as_conversation(texts.name, "text", text) for text in texts.read(indices)]

    return replace(texts, read=read)


def from_texts(name: str, texts: Sequence[str]) -> MapDocuments:
    """Return texts in memory as documents.

    Raises:
        UserError: There are none.
    """
    if not texts:
        raise UserError(f"base.dataset_path: {name} is empty; give a dataset with at least one document")
    return MapDocuments(
        name=name, size=len(texts), read=lambda indices: [texts[index] for index in indices], is_tokenized=False
    )
