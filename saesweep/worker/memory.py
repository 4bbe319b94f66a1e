"""Running out of memory, recognised whatever library says it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from saesweep.engines.protocol import OutOfMemory
from saesweep.errors import UserError

_MESSAGES = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed", "cannot allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that the device or the host has no memory left."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, (RuntimeError, OSError)) and any(text in str(error).lower() for text in _MESSAGES)


class MeasuringMemoryError(MemoryError):
    """Memory ran out while SAEs were measured on held-out tokens: other settings matter than in training."""


@contextmanager
def measuring() -> Iterator[None]:
    """Let an error that says that memory ran out say that it did so while SAEs were measured."""
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if isinstance(error, UserError) or not is_out_of_memory(error):
            raise
        raise MeasuringMemoryError(str(error) or type(error).__name__) from error


@contextmanager
def translate_out_of_memory() -> Iterator[None]:
    """Translate memory that runs out into an `OutOfMemory`, whatever library says it."""
    try:
        yield
        return
    except (MemoryError, RuntimeError, OSError) as error:
        if isinstance(error, UserError) or not is_out_of_memory(error):
            raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
        is_measuring = isinstance(error, MeasuringMemoryError)
    # Outside of the except block: the traceback would hold the cohort and the model.
    raise OutOfMemory(reason, is_measuring)
