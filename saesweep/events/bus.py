"""Hands events to their listeners."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from saesweep.events.types import Event

Listener: TypeAlias = Callable[[Event], None]


class EventBus:
    """Calls every listener with every event, in the order of subscription."""

    def __init__(self, *listeners: Listener) -> None:
        self._listeners = list(listeners)

    def subscribe(self, listener: Listener) -> None:
        """Add a listener."""
        self._listeners.append(listener)

    def emit(self, event: Event) -> None:
        """Hand an event to all listeners."""
        for listener in self._listeners:
            listener(event)
