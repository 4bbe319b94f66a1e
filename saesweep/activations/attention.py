"""Positions that a tokenised dataset's `attention_mask` leaves out.

From the dataset to the packed contexts, a token at such a position is written as the complement of its id, which is
negative: packing and splitting need not know of masks, and the ids that the model gets are still there.
"""

# Shape suffix legend: N = contexts, T = tokens per context

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from saesweep.activations.unreadable import UnreadableRow

MASK_COLUMN = "attention_mask"
"""Where tokenizers put it, beside `input_ids`."""


def hide(ids: list[int], mask: Any) -> list[int]:
    """Return token ids with those at positions of mask 0 hidden.

    Raises:
        UnreadableRow: The mask is no list of 0 and 1 of the same length.
    """
    if not isinstance(mask, (list, tuple)) or len(mask) != len(ids) or not {0, 1}.issuperset(mask):
        raise UnreadableRow(f"column {MASK_COLUMN!r} is no list of 0 and 1 that is as long as the token ids")
    return [token if seen else ~token for token, seen in zip(ids, mask, strict=True)]


def token_ids_NT(contexts_NT: Tensor) -> Tensor:
    """Return the ids of packed contexts, hidden ones too."""
    return torch.where(contexts_NT < 0, ~contexts_NT, contexts_NT)


def predicts_NT(contexts_NT: Tensor) -> Tensor:
    """Return which positions are followed by a token that counts, or by the context's end, bool [N,T]."""
    predicts = torch.ones_like(contexts_NT, dtype=torch.bool)
    predicts[:, :-1] = contexts_NT[:, 1:] >= 0
    return predicts
