"""Which column of a dataset holds its documents, and what a cell of it stands for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from saesweep.activations.tables import Unreadable
from saesweep.activations.unreadable import UnreadableRow
from saesweep.errors import UserError
from saesweep.messages import did_you_mean

if TYPE_CHECKING:
    from saesweep.specs.base_run import BaseRun

_TOKEN_COLUMNS = ("tokens", "input_ids")
_CONVERSATION_COLUMNS = ("conversation", "conversations", "messages")
_TEXT_COLUMNS = ("text", "content", "problem", "document")


@dataclass(frozen=True)
class Conversation:
    """Messages that the tokenizer's chat template turns into one text."""

    messages: tuple[Mapping[str, Any], ...]
    """With `role` and `content`."""
    row: int | None = None
    """Its row in the dataset."""


Document = str | list[int] | Conversation
"""Text, the token ids of a tokenised dataset, or a conversation."""


def find_column(run: BaseRun, row: Mapping[str, Any], block: str) -> tuple[str, bool]:
    """Return (column, whether it holds token ids), from a dataset's first row.

    `run.column_name` says it; otherwise, as in SAELens, token columns win over text columns, unless
    `run.is_dataset_tokenized` says which one is meant.

    Args:
        run: The base run, with the dataset's own fields.
        row: The first row.
        block: What the dataset's own fields are named after in messages; what a column holds is said under `base`.

    Raises:
        UserError: No such column; the message lists those that are there.
    """
    name, listed = run.dataset_path, ", ".join(row) or "none"
    if run.column_name is not None:
        column = run.column_name
        check_column(block, name, column, row)
        holds_ids = isinstance(row[column], (list, tuple)) or (row[column] is None and column in _TOKEN_COLUMNS)
        if run.use_chat_formatting:
            return column, False
        return column, holds_ids if run.is_dataset_tokenized is None else run.is_dataset_tokenized
    if run.use_chat_formatting:
        return _find_conversations(name, row, block), False
    if run.is_dataset_tokenized is not False:
        for column in _TOKEN_COLUMNS:
            if column in row:
                return column, True
        if run.is_dataset_tokenized:
            raise UserError(
                f"base.is_dataset_tokenized: {name} has no column of token ids ({' or '.join(_TOKEN_COLUMNS)}); "
                f"its columns: {listed}. Name the one that holds them with {block}column_name"
            )
    for column in _TEXT_COLUMNS:
        if column in row:
            return column, False
    raise UserError(
        f"{block}dataset_path: {name} has no text column ({', '.join(_TEXT_COLUMNS)}) and no column of token ids "
        f"({', '.join(_TOKEN_COLUMNS)}); its columns: {listed}. Name the one that holds the text with {block}column_name"
    )


def check_column(block: str, name: str, column: str, row: Mapping[str, Any]) -> None:
    """Refuse a column that does not exist.

    Args:
        block: What the fields are named after in the message: `base.`, `evaluation.dataset.` or nothing.
        name: The dataset.
        column: The column asked for.
        row: The dataset's first row.

    Raises:
        UserError: The message lists those that are there.
    """
    if column not in row:
        hint = did_you_mean(column, row)
        raise UserError(
            f"{block}column_name: {name} has no column {column!r}{hint}; its columns: {', '.join(row) or 'none'}"
        )


def find_text_column(block: str, name: str, column: str | None, row: Mapping[str, Any]) -> str:
    """Return the column that holds a dataset's plain text: the one asked for, else the first of the usual names.

    Args:
        block: What the fields are named after in messages.
        name: The dataset.
        column: The column asked for; None for the usual names.
        row: The dataset's first row.

    Raises:
        UserError: It is not there; the message lists those that are.
    """
    if column is not None:
        check_column(block, name, column, row)
        return column
    found = next((usual for usual in _TEXT_COLUMNS if usual in row), None)
    if found is None:
        raise UserError(
            f"{block}column_name: {name} has no text column ({', '.join(_TEXT_COLUMNS)}); its columns: "
            f"{', '.join(row) or 'none'}. Name the one that holds the text"
        )
    return found


def _find_conversations(name: str, row: Mapping[str, Any], block: str) -> str:
    for column in (*_CONVERSATION_COLUMNS, "text"):  # text stands for a user's message, as in SAELens
        if column in row:
            return column
    raise UserError(
        f"base.use_chat_formatting: {name} has no column of conversations ({', '.join(_CONVERSATION_COLUMNS)}) and no "
        f"text column; its columns: {', '.join(row) or 'none'}. Name the one that holds them with {block}column_name"
    )


def as_conversation(column: str, cell: Any) -> Document:
    """Return a cell as a conversation; text is one message of a user, an empty cell an empty document.

    Raises:
        UnreadableRow: The cell is neither text nor a list of messages with `role` and `content`.
    """
    _check_cell(column, cell)
    if not cell:
        return []
    if isinstance(cell, str):
        return Conversation(({"role": "user", "content": cell},))
    if isinstance(cell, (list, tuple)) and all(
        isinstance(message, Mapping) and "role" in message and "content" in message for message in cell
    ):
        return Conversation(tuple(cell))
    raise UnreadableRow(
        f"column {column!r} holds no conversation: a list of messages with `role` and `content` is needed"
    )


def as_text(column: str, cell: Any) -> str:
    """Return a cell as text.

    Raises:
        UnreadableRow: It is something else.
    """
    _check_cell(column, cell)
    if not isinstance(cell, str):
        hint = " (set use_chat_formatting for conversations)" if isinstance(cell, list) else ""
        raise UnreadableRow(f"column {column!r} holds {type(cell).__name__}, not text{hint}")
    return cell


def as_token_ids(column: str, cell: Any) -> list[int]:
    """Return a cell as token ids.

    Raises:
        UnreadableRow: It is something else.
    """
    _check_cell(column, cell)
    if isinstance(cell, str) and not cell:  # a blank line
        return []
    if not isinstance(cell, (list, tuple)):
        raise UnreadableRow(f"column {column!r} holds {type(cell).__name__}, not a list of token ids")
    if not {int}.issuperset(map(type, cell)) or min(cell, default=0) < 0:
        raise UnreadableRow(f"column {column!r} holds a list with something else than token ids")
    return list(cell)


def check_token_ids(ids: Sequence[int], context_size: int, n_token_ids: int | None) -> None:
    """Refuse a row of a tokenised dataset that cannot go through the model.

    Args:
        ids: Its token ids; an empty row is none at all.
        context_size: Tokens per context.
        n_token_ids: Rows of the model's token embedding; None for no limit.

    Raises:
        UnreadableRow: It is shorter than a context, or an id of it is beyond the embedding.
    """
    if not ids:
        return
    if len(ids) < context_size:
        raise UnreadableRow(
            f"it has {len(ids)} tokens, fewer than the {context_size} of a context; lower base.context_size or tokenise "
            "with a longer one"
        )
    if n_token_ids is not None and (largest := max(ids)) >= n_token_ids:
        raise UnreadableRow(
            f"it holds token id {largest}, and the model has embeddings for 0 to {n_token_ids - 1}; "
            "tokenise with the model's own tokenizer"
        )


def _check_cell(column: str, cell: Any) -> None:
    if isinstance(cell, Unreadable):
        raise UnreadableRow(cell.reason)
    if cell is None:
        raise UnreadableRow(f"column {column!r} is null")
