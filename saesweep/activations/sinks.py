"""Attention sinks: few tokens whose norms are so large that they hold much of the variance at a hook.

Explained variance and the scale of `normalize_activations` then say how such a token is rebuilt, and little else.
"""

# Shape suffix legend: M = rows, D = width at a hook

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from saesweep.activations.held_out import HeldOut

MULTIPLES = (10.0, 5.0, 3.0)
"""Values of `max_activation_norm_multiple` that are advised. 10 is the usual one; the early layers of a model may have their
sinks below it (SmolLM2-135M: 185 times the median at layer 12, 3 to 10 times at layer 6)."""
_MAX_TOKEN_SHARE = 0.05
"""More tokens than that are a heavy tail, not sinks: they are what the SAE has to learn."""
_MIN_VARIANCE_SHARE = 0.2
_SAME = 0.9
"""A larger multiple will do where the tokens beyond it hold this share of the variance of all sinks."""
_MAX_TOKENS = 8192


@dataclass(frozen=True, kw_only=True)
class Sinks:
    """The sinks at one hook, among the first held-out tokens."""

    hook: str
    tokens: int
    """Tokens that were looked at."""
    count: int
    """Sinks among them."""
    variance_share: float
    """Their share of the variance."""
    largest_multiple: float
    """The largest norm over the median norm."""
    multiple: float
    """The `max_activation_norm_multiple` that leaves them out."""
    limit: float
    """The norm beyond which a token is a sink: `multiple` times the median."""
    positions: tuple[tuple[int, int], ...]
    """(position in the context, sinks there), most first; empty where positions are unknown."""
    are_special: bool
    """Whether all of them are special tokens, such as BOS."""

    def message(self) -> str:
        """Return what to tell the user, with the setting to write."""
        setting = f"base.max_activation_norm_multiple: {self.multiple:g}"
        if self.are_special:
            setting += ", or base.exclude_special_tokens: true, as all of them are special tokens,"
        return (
            f"attention sinks at {self.hook}: {self.count} of {self.tokens:,} tokens ({100 * self.count / self.tokens:.2g}%) "
            f"hold {100 * self.variance_share:.0f}% of the variance{self._where()}, with norms up to "
            f"{self.largest_multiple:.3g} times the median. Explained variance and the scale of normalisation follow these "
            f"tokens more than all others; set {setting} to leave them out (docs/models_and_data.md)"
        )

    def _where(self) -> str:
        if not self.positions:
            return ""
        position, there = self.positions[0]
        if there == self.count:
            return f", all of them at position {position} of the context"
        return f", {there} of them at position {position} of the context"


def find_sinks(part: HeldOut, hook: str, special_ids: Collection[int] = ()) -> Sinks | None:
    """Return the sinks among the first tokens of a held-out part; None where few tokens hold no large share.

    Tokens that the run leaves out already are not looked at. The activations that this needs are those that the first
    measurement needs, so that the model does nothing twice.

    Args:
        part: The held-out part; synthetic activations have no sinks.
        hook: Where to look.
        special_ids: Ids of the tokenizer's special tokens.
    """
    if part.true_features_FD is not None:
        return None
    norms_M, deviations_M = _norms(part, hook), _deviations(part, hook)
    usable_M = torch.isfinite(norms_M) & torch.isfinite(deviations_M)  # others end the run with a message of their own
    total, tokens = float(deviations_M[usable_M].sum()), int(usable_M.sum())
    if tokens == 0 or total == 0:
        return None
    median = float(norms_M[usable_M].median())
    found = []
    for multiple in MULTIPLES:
        beyond_M = usable_M & (norms_M > multiple * median)
        if int(beyond_M.sum()) <= _MAX_TOKEN_SHARE * tokens:
            found.append((multiple, beyond_M, float(deviations_M[beyond_M].sum()) / total))
    if not found or found[-1][2] < _MIN_VARIANCE_SHARE:
        return None
    multiple, beyond_M, share = next(each for each in found if each[2] >= _SAME * found[-1][2])
    positions, are_special = _places(part, beyond_M, special_ids)
    return Sinks(
        hook=hook,
        tokens=tokens,
        count=int(beyond_M.sum()),
        variance_share=share,
        largest_multiple=float(norms_M[beyond_M].max()) / median,
        multiple=multiple,
        limit=multiple * median,
        positions=positions,
        are_special=are_special,
    )


def _norms(part: HeldOut, hook: str) -> Tensor:
    return torch.cat([torch.linalg.vector_norm(rows_MD, dim=-1).double().cpu() for rows_MD in _rows(part, hook)])


def _deviations(part: HeldOut, hook: str) -> Tensor:
    """Return each token's squared distance from the mean: its share of the variance, but for a factor."""
    total_D, count = None, 0
    for rows_MD in _rows(part, hook):
        finite_MD = rows_MD[torch.isfinite(rows_MD).all(-1)].double()
        total_D = finite_MD.sum(0) if total_D is None else total_D + finite_MD.sum(0)
        count += len(finite_MD)
    assert total_D is not None
    mean_D = total_D / max(1, count)
    return torch.cat([(rows_MD.double() - mean_D).square().sum(-1).cpu() for rows_MD in _rows(part, hook)])


def _rows(part: HeldOut, hook: str) -> Iterator[Tensor]:
    return part.batches(hook, _MAX_TOKENS)


def _places(part: HeldOut, beyond_M: Tensor, special_ids: Collection[int]) -> tuple[tuple[tuple[int, int], ...], bool]:
    """Return where in their contexts the sinks are, and whether all of them are special tokens."""
    if part.mask_NT is None or part.tokens_NT is None:
        return (), False
    where_M2 = torch.nonzero(part.mask_NT.cpu())[: len(beyond_M)][beyond_M]
    ids = part.tokens_NT.cpu()[where_M2[:, 0], where_M2[:, 1]].tolist()
    positions = Counter(where_M2[:, 1].tolist()).most_common()
    return tuple(positions), bool(ids) and set(ids) <= set(special_ids)
