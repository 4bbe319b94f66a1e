"""Says what a run does now, from wherever it is done: whoever loads, tokenises or measures need not know who listens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from saesweep.events.types import Activity, Event

_listener: ContextVar[Callable[[Event], None] | None] = ContextVar("saesweep_activity_listener", default=None)


@contextmanager
def telling(listener: Callable[[Event], None]) -> Iterator[None]:
    """Hand what `doing` says to a listener, on this thread, while the context is open."""
    before = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(before)


def doing(message: str, done: int | None = None, total: int | None = None) -> None:
    """Say what is being done; nothing happens where nobody listens.

    Args:
        message: Such as `loading builtin:tiny-lm`; the same one again says how far it is.
        done: Of `total`; None where it cannot be counted.
        total: How much there is to do.
    """
    listener = _listener.get()
    if listener is not None:
        listener(Activity(message=message, done=done, total=total))
