"""Which positions of a context give a row of activations: those that the dataset's `attention_mask`, the run and a limit of norms leave.

From the dataset to the packed contexts, a token that `attention_mask` leaves out is written as the complement of its id, which is
negative: packing and splitting need not know of masks, and the ids that the model gets are still there.

Shape suffixes: N = contexts, T = tokens per context, M = rows that count, D = width at a hook.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from saesweep.activations.unreadable import UnreadableRow
from saesweep.activity import doing
from saesweep.models.base import LanguageModel
from saesweep.models.shape import shape_activations
from saesweep.specs.joint_hooks import hooks_in

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


@dataclass(frozen=True, kw_only=True)
class RowFilter:
    """Positions inside `seqpos_slice` whose token is not excluded."""

    context_size: int
    """Tokens per context."""
    seqpos_slice: tuple[int | None, ...] = (None,)
    """Arguments of Python's `slice`."""
    excluded: Sequence[int] = ()
    """Token ids whose activations are left out."""

    @property
    def rows_per_context(self) -> int:
        """Maximum number of rows that a context gives."""
        return len(range(self.context_size)[slice(*self.seqpos_slice)])

    def mask(self, tokens_NT: Tensor) -> Tensor:
        """Return which positions of packed contexts count, bool [N,T]."""
        mask_NT = torch.zeros_like(tokens_NT, dtype=torch.bool)
        mask_NT[:, range(self.context_size)[slice(*self.seqpos_slice)]] = True
        mask_NT &= tokens_NT >= 0  # hidden by the dataset's attention mask
        if self.excluded:
            mask_NT &= ~torch.isin(tokens_NT, torch.tensor(self.excluded, dtype=tokens_NT.dtype))
        return mask_NT


def paired(mask_NT: Tensor) -> Tensor:
    """Return which of the positions that count make pairs of neighbours, bool [N,T]: two and two from the left, the rest is left out."""
    positions_T = torch.arange(mask_NT.shape[1])
    last_gap_NT = torch.where(mask_NT, -1, positions_T).cummax(dim=1).values
    begins_NT = mask_NT & ((positions_T - last_gap_NT) % 2 == 1)
    begins_NT[:, :-1] &= mask_NT[:, 1:]
    begins_NT[:, -1] = False
    ends_NT = torch.zeros_like(begins_NT)
    ends_NT[:, 1:] = begins_NT[:, :-1]
    return begins_NT | ends_NT


def select_rows(acts_NTD: Tensor, mask_NT: Tensor) -> Tensor:
    """Return the rows [M,D] at the positions that count, context by context."""
    if bool(mask_NT.all()):  # no copy
        return acts_NTD.flatten(0, 1)
    return acts_NTD[mask_NT.to(acts_NTD.device)]


@dataclass(frozen=True)
class NormLimit:
    """A row is kept where its norm is at most the limit, at every hook, and at each of those that are read together.

    dictionary_learning, whose option this is, takes a median per forward pass. Here the limit is measured once, on
    held-out text, so that whether a row counts does not depend on its neighbours, and is the same in training and evaluation.
    """

    limits: Mapping[str, float]
    """Largest norm by hook."""

    @classmethod
    def measure(
        cls,
        multiple: float,
        *,
        model: LanguageModel,
        hooks: Sequence[str],
        head_index: int | None,
        rows: RowFilter,
        tokens_NT: Tensor,
    ) -> NormLimit:
        """Return `multiple` times the median norm at every hook, over one forward pass of `tokens_NT`."""
        doing("measuring the usual norm of an activation")
        single = list(dict.fromkeys(each for name in hooks for each in hooks_in(name)))
        acts = model.activations(token_ids_NT(tokens_NT), single)
        mask_NT = rows.mask(tokens_NT)
        return cls(
            {
                hook: multiple * float(_norms(select_rows(shape_activations(acts[hook], head_index), mask_NT)).median())
                for hook in single
            }
        )

    def keep(self, rows: Mapping[str, Tensor]) -> Tensor:
        """Return which rows [M,D] are kept, bool [M]; a row with NaN is kept, as it is no question of size."""
        kept = []
        for name, rows_MD in rows.items():
            own = hooks_in(name)
            for hook, part_MD in zip(own, rows_MD.chunk(len(own), dim=-1), strict=True):
                kept.append(~(_norms(part_MD) > self.limits[hook]))
        return torch.stack([keep_M.to(kept[0].device) for keep_M in kept]).all(0)


def _norms(rows_MD: Tensor) -> Tensor:
    # float32: the square of a sink's norm overflows float16.
    norms_M: Tensor = torch.linalg.vector_norm(rows_MD, dim=-1, dtype=torch.float32)
    return norms_M


def first_rows(pieces: Iterable[dict[str, Tensor]], max_rows: int) -> Iterator[dict[str, Tensor]]:
    """Yield pieces, whose rows are those of all hooks, until they have so many rows; the last one is cut."""
    left = max_rows
    for piece in pieces:
        if left <= 0:
            return
        cut = {hook: rows_MD[:left] for hook, rows_MD in piece.items()}
        left -= len(next(iter(cut.values())))
        yield cut
