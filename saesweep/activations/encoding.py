"""From documents to token ids, and which of them are special."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from saesweep.activations.columns import Conversation, Document
from saesweep.activations.unreadable import UnreadableRows
from saesweep.errors import UserError

if TYPE_CHECKING:
    from saesweep.specs.base_run import BaseRun

_SPECIAL_ATTRIBUTES = ("bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "decoder_start_token_id")
"""SAELens' set: structural tokens only, so that chat-template tokens keep their activations."""

BEYOND_EMBEDDING = "the tokenizer gives token"
"""How the reason begins that names a token which the model has no embedding for."""


def encode_documents(
    tokenizer: Any,
    documents: Sequence[Document],
    refused: Callable[[str | Conversation, str], None],
    *,
    n_token_ids: int | None = None,
    with_special_tokens: bool = False,
) -> list[list[int]]:
    """Return the token ids of each document.

    Documents that are token ids already come back as they are; conversations go through the chat template, which
    brings its own special tokens.

    Args:
        tokenizer: The tokenizer.
        documents: All of them text, or none.
        refused: Told of each document that gives no tokens: a conversation that the chat template refuses, or text
            with a token that the model has no embedding for.
        n_token_ids: Rows of the model's token embedding; None for no limit.
        with_special_tokens: Text keeps the special tokens that the tokenizer adds by itself. Otherwise it has none, and
            packing adds those that the run asks for.
    """
    texts = [document for document in documents if isinstance(document, str)]
    if texts:
        # verbose=False: a document may be longer than the model's context, packing cuts it.
        ids: list[list[int]] = tokenizer(texts, add_special_tokens=with_special_tokens, verbose=False)["input_ids"]
        return [
            _embedded(tokenizer, found, n_token_ids, partial(refused, text))
            for text, found in zip(texts, ids, strict=True)
        ]
    return [
        document
        if isinstance(document, list)
        else _embedded(
            tokenizer, _encode_conversation(tokenizer, document, refused), n_token_ids, partial(refused, document)
        )
        for document in documents
        if not isinstance(document, str)
    ]


def note_refused(unreadable: UnreadableRows) -> Callable[[str | Conversation, str], None]:
    """Return what counts refused documents among the rows that cannot be used."""

    def note(document: str | Conversation, reason: str) -> None:
        if isinstance(document, Conversation):
            unreadable.add(document.row, f"row {document.row}: {reason}")
        else:
            # Text does not know its row; its checksum tells documents apart, below every row number.
            unreadable.add(-1 - zlib.crc32(document.encode(errors="replace")), f"{document[:40]!r}...: {reason}")

    return note


def check_embedded(tokenizer: Any, token: int | None, n_token_ids: int, field: str) -> None:
    """Refuse a token that packing adds and the model has no embedding for.

    Raises:
        UserError: Names the field that asks for it.
    """
    if token is not None and token >= n_token_ids:
        raise UserError(f"base.{field}: {_beyond(tokenizer, token, n_token_ids)}, or leave this token out")


def _embedded(tokenizer: Any, ids: list[int], n_token_ids: int | None, refused: Callable[[str], None]) -> list[int]:
    """Return token ids that all have an embedding, or none."""
    if n_token_ids is None or not ids or (largest := max(ids)) < n_token_ids:
        return ids
    refused(_beyond(tokenizer, largest, n_token_ids))
    return []


def _beyond(tokenizer: Any, token: int, n_token_ids: int) -> str:
    return (
        f"{BEYOND_EMBEDDING} {tokenizer.convert_ids_to_tokens(token)!r} (id {token}), and the model has embeddings "
        f"for 0 to {n_token_ids - 1}; use the tokenizer that the model was trained with, or a model whose embedding was "
        "resized for the added tokens"
    )


def _encode_conversation(
    tokenizer: Any, conversation: Conversation, refused: Callable[[str | Conversation, str], None]
) -> list[int]:
    from jinja2 import TemplateError

    messages = [dict(message) for message in conversation.messages]
    try:
        ids: list[int] = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
    except TemplateError as error:  # such as roles that do not alternate
        refused(conversation, f"the chat template refuses a conversation: {error}")
        return []
    return ids


def check_chat_template(run: BaseRun, tokenizer: Any) -> None:
    """Refuse chat formatting with a tokenizer that has no template.

    Raises:
        UserError: It has none.
    """
    if run.use_chat_formatting and not tokenizer.chat_template:
        raise UserError(
            f"base.use_chat_formatting: the tokenizer of {run.model_name} has no chat template; use the model's chat "
            "variant, or leave it out"
        )


def special_token(tokenizer: Any, token: int | str | None) -> int | None:
    """Return the id for `bos`, `eos`, `sep` or an id itself; None where the tokenizer has none, as in SAELens."""
    if token is None or isinstance(token, int):
        return token
    found: int | None = getattr(tokenizer, f"{token}_token_id")
    return found


def excluded_tokens(run: BaseRun, tokenizer: Any) -> list[int]:
    """Return the token ids whose activations count nowhere (`exclude_special_tokens`), sorted.

    Raises:
        UserError: Special tokens are to be left out and the tokenizer has none.
    """
    if run.exclude_special_tokens is False:
        return []
    if run.exclude_special_tokens is not True:
        return sorted(set(run.exclude_special_tokens))
    ids = {getattr(tokenizer, attribute, None) for attribute in _SPECIAL_ATTRIBUTES}
    special = sorted(token for token in ids if token is not None)
    if not special:
        raise UserError(
            "base.exclude_special_tokens: the tokenizer has no special tokens; set it to false or list token ids"
        )
    return special
