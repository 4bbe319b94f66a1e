"""Hands events to their listeners, activities among them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any, TypeAlias

from saesweep.activity import listening
from saesweep.events.types import Activity, Event
from saesweep.messages import presentable


def reporting_activity(listener: Callable[[Event], None]) -> AbstractContextManager[None]:
    """Hand what `saesweep.activity.doing` says to a listener of events, on this thread, while the context is open."""
    return listening(lambda message, done, total: listener(Activity(message=message, done=done, total=total)))


Listener: TypeAlias = Callable[[Event], None]


_TEXT_FIELDS = ("message", "reason")
_TEXT_LIST_FIELDS = ("notes",)


class EventBus:
    """Calls every listener with every event, in the order of subscription."""

    def __init__(self, *listeners: Listener) -> None:
        self._listeners = list(listeners)

    def subscribe(self, listener: Listener) -> None:
        """Add a listener."""
        self._listeners.append(listener)

    @contextmanager
    def muted(self) -> Iterator[None]:
        """Hand nothing on for as long: what happens has been told before."""
        listeners, self._listeners = self._listeners, []
        try:
            yield
        finally:
            self._listeners = listeners

    def emit(self, event: Event) -> None:
        """Hand an event to all listeners, its messages presentable."""
        event = _presentable(event)
        for listener in self._listeners:
            listener(event)


def _presentable(event: Event) -> Event:
    changes: dict[str, Any] = {}
    for name in _TEXT_FIELDS:
        if text := getattr(event, name, ""):
            changes[name] = presentable(text)
    for name in _TEXT_LIST_FIELDS:
        if texts := getattr(event, name, ()):
            changes[name] = tuple(map(presentable, texts))
    return replace(event, **changes) if changes else event
