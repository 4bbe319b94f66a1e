"""A worker's device: time on it, which a GPU takes in its own queue, and memory that runs out on it, whatever library says so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from saesweep.costs import Stopwatch
from saesweep.engines.protocol import OutOfMemory
from saesweep.errors import UserError, first_line

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
        reason = first_line(error)
        is_measuring = isinstance(error, MeasuringMemoryError)
    # Outside of the except block: the traceback would hold the cohort and the model.
    raise OutOfMemory(reason, is_measuring)


def stopwatch_for(device: torch.device) -> Stopwatch:
    """Return a stopwatch for work on a device."""
    if device.type != "cuda":
        return Stopwatch()

    def mark() -> Any:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(device))
        return event

    def between(begin: Any, end: Any) -> float:
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1000

    return Stopwatch(mark, between)
