"""The batches that training sees: those of the stream, but for the ones with NaN or infinities."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor

from saesweep.activations import HeldOut
from saesweep.errors import UserError
from saesweep.messages import short_count

_MAX_WARNINGS = 3
"""After this many messages the rest are only counted."""


class Stream(Protocol):
    """What serves batches."""

    tokens_served: int

    @property
    def is_known_finite(self) -> bool:
        """Whether the batch served last is known to be finite."""
        ...

    def next_batch(self) -> dict[str, Tensor]:
        """Return the next batch by hook."""
        ...


class FiniteBatches:
    """Skips and counts batches with NaN or infinite activations; a trial gets the next batch in their place.

    Args:
        stream: Where batches come from.
        max_skipped: More skipped batches than this end the run.
        warn: Called with a warning for the first few.
    """

    def __init__(self, stream: Stream, *, max_skipped: int, warn: Callable[[str], None]) -> None:
        self._stream = stream
        self._max_skipped = max_skipped
        self._warn = warn
        self.skipped = 0
        """Batches skipped so far, over all starts of the run."""

    def next_batch(self) -> dict[str, Tensor]:
        """Return the next finite batch.

        Raises:
            UserError: Too many batches were not finite.
        """
        while True:
            at_tokens = self._stream.tokens_served
            batch = self._stream.next_batch()
            # To look would wait for a GPU at every step.
            bad = None if self._stream.is_known_finite else not_finite(batch)
            if bad is None:
                return batch
            self.skipped += 1
            if self.skipped > self._max_skipped:
                raise UserError(
                    f"{self.skipped} batches had NaN or infinite activations at {bad}, more than "
                    f"cohort.max_skipped_batches: {self._max_skipped}. Load the model in float32 or bfloat16 "
                    "(model_from_pretrained_kwargs: {dtype: ...}), or look at the data; "
                    "the same command resumes from the last checkpoint"
                )
            if self.skipped <= _MAX_WARNINGS:
                last = "; further ones are only counted" if self.skipped == _MAX_WARNINGS else ""
                self._warn(
                    f"skipped a batch with NaN or infinite activations at {bad}, {short_count(at_tokens)} tokens in{last}"
                )


def not_finite(batch: Mapping[str, Tensor]) -> str | None:
    """Return the first hook whose activations hold NaN or infinities."""
    for hook, x in batch.items():
        # A sum is one read of the batch and keeps NaN and infinities; only where it overflows is a closer look due.
        if not bool(torch.isfinite(x.sum(dtype=torch.float32))) and not bool(torch.isfinite(x).all()):
            return hook
    return None


def check_held_out(part: HeldOut, hook: str) -> None:
    """Raise a UserError where a part's activations hold NaN or infinities: no trial could ever score on them."""
    for x_ND in part.batches(hook):
        if not_finite({hook: x_ND}) is not None:
            raise UserError(
                f"the held-out activations at {hook} hold NaN or infinities, so that no trial can be measured. "
                "Load the model in float32 or bfloat16 (model_from_pretrained_kwargs: {dtype: ...})"
            )
