"""Activations of single texts, each by itself in a context: what probes read.

Shape suffixes: N = texts of a forward pass, T = tokens of the longest of them, M = rows that count, D = width at a hook.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from saesweep.activations.encoding import encode_documents
from saesweep.activations.packing import Packing
from saesweep.activations.rows import select_rows
from saesweep.activations.settings import token_settings
from saesweep.activity import doing
from saesweep.errors import UserError
from saesweep.models.base import LanguageModel
from saesweep.models.shape import shape_activations

if TYPE_CHECKING:
    from saesweep.activations.columns import Conversation
    from saesweep.specs.base_run import BaseRun

Pooling = Literal["last", "mean"]


@dataclass(frozen=True)
class TextRows:
    """Activations of texts at one hook, in main memory and in the model's type."""

    rows_MD: Tensor
    """Text by text."""
    counts: tuple[int, ...]
    """Rows of each text: one of its last token, or one of each of its tokens."""


def rows_of_texts(
    texts: Sequence[str], run: BaseRun, model: LanguageModel, hooks: Sequence[str], *, pooling: Pooling, place: str
) -> dict[str, TextRows]:
    """Return the activations of each text by hook, from one forward pass for all hooks.

    A text begins with BOS where `prepend_bos` says so, and no row is taken there. One longer than `context_size` keeps its end.

    Args:
        texts: The texts.
        run: Its `context_size`, `prepend_bos`, head and batch size.
        model: The language model.
        hooks: Where to read.
        pooling: Whether the last token of a text counts, or every token.
        place: What to name in messages.

    Raises:
        UserError: A text has no token, or one that the model has no embedding for.
    """
    packing, _ = token_settings(run, model.tokenizer, False, model.n_token_ids)
    tokens = _tokens(texts, model, packing, place)
    # Texts of like length together, as each is padded to the longest beside it; what follows a token does not change it.
    order = sorted(range(len(texts)), key=lambda index: len(tokens[index]))
    size = run.eval_batch_size_prompts or run.store_batch_size_prompts
    found: dict[str, list[Tensor]] = {hook: [torch.empty(0)] * len(texts) for hook in hooks}
    for start in range(0, len(order), size):
        doing("running the model on the texts of probes", start, len(order))
        members = order[start : start + size]
        longest = max(len(tokens[index]) for index in members)
        tokens_NT = torch.zeros(len(members), longest, dtype=torch.int64)
        mask_NT = torch.zeros(len(members), longest, dtype=torch.bool)
        for row, index in enumerate(members):
            ids = tokens[index]
            tokens_NT[row, : len(ids)] = torch.tensor(ids)
            first = len(ids) - 1 if pooling == "last" else int(packing.begin_token is not None)
            mask_NT[row, first : len(ids)] = True
        acts = model.activations(tokens_NT, hooks)
        counts = mask_NT.sum(1).tolist()
        for hook in hooks:
            rows_MD = select_rows(shape_activations(acts[hook], run.hook_head_index), mask_NT)
            # A copy, so that the rows are no view of the whole output and no inference tensor.
            own_MD = torch.empty(rows_MD.shape, dtype=rows_MD.dtype).copy_(rows_MD)
            for index, part_MD in zip(members, torch.split(own_MD, counts), strict=True):
                found[hook][index] = part_MD
    return {hook: TextRows(torch.cat(parts), tuple(map(len, parts))) for hook, parts in found.items()}


def _tokens(texts: Sequence[str], model: LanguageModel, packing: Packing, place: str) -> list[list[int]]:
    """Return the token ids of each text, with BOS before it where contexts begin with one."""

    def refused(document: str | Conversation, reason: str) -> None:
        raise UserError(f"{place}: {str(document)[:40]!r}...: {reason}")

    found = encode_documents(model.tokenizer, texts, refused, n_token_ids=model.n_token_ids)
    begin = [] if packing.begin_token is None else [packing.begin_token]
    for text, ids in zip(texts, found, strict=True):
        if not ids:
            raise UserError(f"{place}: the tokenizer makes no token of {text[:40]!r}; leave this text out")
    return [[*begin, *ids[len(begin) - packing.context_size :]] for ids in found]
