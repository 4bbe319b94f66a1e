"""Activities as events."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from saesweep.activity import hearing
from saesweep.events.types import Activity, Event


def telling(listener: Callable[[Event], None]) -> AbstractContextManager[None]:
    """Hand what `saesweep.activity.doing` says to a listener of events, on this thread, while the context is open."""
    return hearing(lambda message, done, total: listener(Activity(message=message, done=done, total=total)))
