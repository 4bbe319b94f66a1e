"""From the token ids of documents to contexts of one length, as SAELens packs them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Packing:
    """How documents become contexts."""

    context_size: int
    """Tokens per context, at least 2."""
    begin_token: int | None
    """First token of every context (BOS where `prepend_bos`)."""
    separator_token: int | None
    """Token between two documents of one context."""
    concatenate: bool
    """Several documents per context; otherwise one, and shorter documents are dropped."""
    is_tokenized: bool
    """Documents are packed already: each is cut into contexts, what is left of it is dropped, and nothing is added."""
    n_token_ids: int | None = None
    """Rows of the model's token embedding: text that gives an id beyond it is left out. None for no limit."""
    begin_sequence_token: int | None = None
    """First token of every document. A pre-tokenised dataset may have it; a context can then be cut after it, so
    (document, offset) is no longer the whole state of a `Packer`."""


class Packer:
    """Fills contexts document by document; what does not fill one is kept for the next document."""

    def __init__(self, packing: Packing) -> None:
        self._packing = packing
        self._partial: list[int] = []

    def pack(self, tokens: Sequence[int], offset: int = 0) -> Iterator[tuple[list[int], int]]:
        """Add a document; an empty one adds nothing.

        Args:
            tokens: Its token ids.
            offset: Where to start in it; not 0 only right after a context was finished in this document.

        Yields:
            (context, offset in the document where the next one continues). At that moment nothing is kept back,
            so (document, offset) is the whole state.
        """
        if not tokens:
            return
        if self._packing.is_tokenized:
            yield from self._cut(tokens, offset)
        elif self._packing.concatenate:
            yield from self._concatenate(tokens, offset)
        elif offset == 0:
            yield from self._one_context(tokens)

    def _concatenate(self, tokens: Sequence[int], offset: int) -> Iterator[tuple[list[int], int]]:
        size, begin, separator = self._packing.context_size, self._packing.begin_token, self._packing.separator_token
        begin_sequence = self._packing.begin_sequence_token if offset == 0 else None
        while offset < len(tokens):
            # A token is not put before itself: a document may bring its own BOS.
            prefix: list[int] = []
            if begin_sequence is not None and tokens[offset] != begin_sequence:
                prefix = [begin_sequence]
            token = separator if self._partial else begin
            if token is not None and (prefix[0] if prefix else tokens[offset]) != token:
                prefix = [token, *prefix]
            free = size - len(self._partial)
            self._partial.extend(prefix[:free])
            if len(prefix) <= free:
                begin_sequence = None  # said; otherwise the next context begins with it
            room = size - len(self._partial)
            self._partial.extend(tokens[offset : offset + room])
            offset = min(offset + room, len(tokens))
            if len(self._partial) == size:
                context, self._partial = self._partial, []
                yield context, offset

    def _one_context(self, tokens: Sequence[int]) -> Iterator[tuple[list[int], int]]:
        size, begin = self._packing.context_size, self._packing.begin_token
        if self._packing.begin_sequence_token is not None:
            begin = self._packing.begin_sequence_token
        context = list(tokens[:size])
        if begin is not None and tokens[0] != begin:
            context = [begin, *tokens[: size - 1]]
        if len(context) == size:
            yield context, len(tokens)

    def _cut(self, tokens: Sequence[int], offset: int) -> Iterator[tuple[list[int], int]]:
        size = self._packing.context_size
        while offset + size <= len(tokens):
            context = list(tokens[offset : offset + size])
            offset += size
            yield context, offset


def no_document_is_long_enough(name: str, context_size: int) -> str:
    """Return the message about documents that each have a context to themselves and do not fill it."""
    return (
        f"base.disable_concat_sequences: no document of {name} has the {context_size} tokens of a context; set it to "
        "false, so that several documents share a context, or lower base.context_size"
    )
