"""Which column of a dataset holds its documents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saesweep.activations.documents import Conversation, Document
from saesweep.errors import UserError

_TOKEN_COLUMNS = ("tokens", "input_ids")
_CONVERSATION_COLUMNS = ("conversation", "conversations", "messages")
_TEXT_COLUMNS = ("text", "content", "problem", "document")


def find_column(name: str, row: Mapping[str, Any], is_dataset_tokenized: bool | None) -> tuple[str, bool]:
    """Return (column, whether it holds token ids), from a dataset's first row.

    Token columns win over text columns, as in SAELens, unless `is_dataset_tokenized` says which one is meant.

    Raises:
        UserError: No such column; the message lists those that are there.
    """
    listed = ", ".join(row) or "none"
    if is_dataset_tokenized is not False:
        for column in _TOKEN_COLUMNS:
            if column in row:
                return column, True
        if is_dataset_tokenized:
            raise UserError(
                f"base.is_dataset_tokenized: {name} has no column of token ids ({' or '.join(_TOKEN_COLUMNS)}); "
                f"its columns: {listed}"
            )
    for column in _TEXT_COLUMNS:
        if column in row:
            return column, False
    raise UserError(
        f"base.dataset_path: {name} has no text column ({', '.join(_TEXT_COLUMNS)}) and no column of token ids "
        f"({', '.join(_TOKEN_COLUMNS)}); its columns: {listed}. Rename the column that holds the text"
    )


def find_conversations(name: str, row: Mapping[str, Any]) -> str:
    """Return the column that holds conversations, or text that stands for a user's message, as in SAELens.

    Raises:
        UserError: No such column; the message lists those that are there.
    """
    for column in (*_CONVERSATION_COLUMNS, "text"):
        if column in row:
            return column
    raise UserError(
        f"base.use_chat_formatting: {name} has no column of conversations ({', '.join(_CONVERSATION_COLUMNS)}) and no "
        f"text column; its columns: {', '.join(row) or 'none'}"
    )


def as_conversation(name: str, column: str, value: Any) -> Conversation:
    """Return a cell as a conversation; text is one message of a user.

    Raises:
        UserError: The cell is neither text nor a list of messages with `role` and `content`.
    """
    if isinstance(value, str):
        return Conversation(({"role": "user", "content": value},))
    if isinstance(value, (list, tuple)) and all(
        isinstance(message, Mapping) and "role" in message and "content" in message for message in value
    ):
        return Conversation(tuple(value))
    raise UserError(
        f"base.use_chat_formatting: column {column!r} of {name} holds no conversation: a list of messages with "
        "`role` and `content` is needed"
    )


def as_document(name: str, column: str, value: Any, is_tokenized: bool) -> Document:
    """Return a cell as a document; a null cell is an empty one.

    Raises:
        UserError: The cell is neither text nor token ids.
    """
    if value is None:
        return [] if is_tokenized else ""
    if is_tokenized and isinstance(value, (list, tuple)):
        return list(value)
    if not is_tokenized and isinstance(value, str):
        return value
    wanted = "a list of token ids" if is_tokenized else "text"
    raise UserError(f"base.dataset_path: column {column!r} of {name} holds {type(value).__name__}, not {wanted}")
