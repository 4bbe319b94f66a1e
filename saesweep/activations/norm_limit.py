"""Leaves out activations with huge norms, such as attention sinks (`max_activation_norm_multiple`)."""

# Shape suffix legend: N = contexts, T = tokens per context, M = rows, D = width at a hook

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from saesweep.activations.attention import token_ids_NT
from saesweep.activations.rows import RowFilter, select_rows
from saesweep.activity import doing
from saesweep.models.base import LanguageModel
from saesweep.models.shape import shape_activations


@dataclass(frozen=True)
class NormLimit:
    """A row is kept where its norm is at most the limit, at every hook.

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
        acts = model.activations(token_ids_NT(tokens_NT), hooks)
        mask_NT = rows.mask(tokens_NT)
        return cls(
            {
                hook: multiple * float(_norms(select_rows(shape_activations(acts[hook], head_index), mask_NT)).median())
                for hook in hooks
            }
        )

    def keep(self, rows: Mapping[str, Tensor]) -> Tensor:
        """Return which rows [M,D] are kept, bool [M]; a row with NaN is kept, as it is no question of size."""
        kept = [~(_norms(rows_MD) > self.limits[hook]) for hook, rows_MD in rows.items()]
        return torch.stack([keep_M.to(kept[0].device) for keep_M in kept]).all(0)


def _norms(rows_MD: Tensor) -> Tensor:
    # float32: the square of a sink's norm overflows float16.
    norms_M: Tensor = torch.linalg.vector_norm(rows_MD, dim=-1, dtype=torch.float32)
    return norms_M
