"""From documents to token ids, and which of them are special."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from saesweep.activations.documents import Conversation, Document
from saesweep.activations.unreadable import UnreadableRows
from saesweep.errors import UserError

if TYPE_CHECKING:
    from saesweep.specs.base_run import BaseRun

_SPECIAL_ATTRIBUTES = ("bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "decoder_start_token_id")
"""SAELens' set: structural tokens only, so that chat-template tokens keep their activations."""


def encode_documents(
    tokenizer: Any,
    documents: Sequence[Document],
    refused: Callable[[Conversation, str], None],
    *,
    with_special_tokens: bool = False,
) -> list[list[int]]:
    """Return the token ids of each document.

    Documents that are token ids already come back as they are; conversations go through the chat template, which
    brings its own special tokens.

    Args:
        tokenizer: The tokenizer.
        documents: All of them text, or none.
        refused: Told of each conversation that the chat template refuses, which gives no tokens.
        with_special_tokens: Text keeps the special tokens that the tokenizer adds by itself. Otherwise it has none, and
            packing adds those that the run asks for.
    """
    texts = [document for document in documents if isinstance(document, str)]
    if texts:
        # verbose=False: a document may be longer than the model's context, packing cuts it.
        ids: list[list[int]] = tokenizer(texts, add_special_tokens=with_special_tokens, verbose=False)["input_ids"]
        return ids
    return [
        document if isinstance(document, list) else _encode_conversation(tokenizer, document, refused)
        for document in documents
        if not isinstance(document, str)
    ]


def note_refused(unreadable: UnreadableRows) -> Callable[[Conversation, str], None]:
    """Return what counts refused conversations among the rows that cannot be used."""

    def note(conversation: Conversation, reason: str) -> None:
        unreadable.add(conversation.row, f"row {conversation.row}: {reason}")

    return note


def _encode_conversation(
    tokenizer: Any, conversation: Conversation, refused: Callable[[Conversation, str], None]
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
