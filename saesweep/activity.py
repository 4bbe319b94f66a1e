"""Says what is done now, from wherever it is done: whoever loads, tokenises or measures need not know who listens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeAlias

ActivityListener: TypeAlias = Callable[[str, int | None, int | None], None]
"""Called with the message, and how much of how much is done."""

_listener: ContextVar[ActivityListener | None] = ContextVar("saesweep_activity_listener", default=None)


@contextmanager
def listening(listener: ActivityListener) -> Iterator[None]:
    """Hand what `doing` says to a listener, on this thread, while the context is open."""
    before = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(before)


def doing(message: str, done: int | None = None, total: int | None = None) -> None:
    """Say what is being done, to whoever listens.

    Args:
        message: Such as `loading builtin:tiny-lm`; the same one again says how far it is.
        done: Of `total`; None where it cannot be counted.
        total: How much there is to do.
    """
    listener = _listener.get()
    if listener is not None:
        listener(message, done, total)
