"""At most one action per interval."""

from __future__ import annotations

from collections.abc import Callable


class Throttle:
    """Lets an action through at most once per `seconds`.

    Args:
        seconds: Shortest time between two actions.
        clock: Returns monotonic seconds.
    """

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._seconds = seconds
        self._clock = clock
        self._last: float | None = None

    def ready(self) -> bool:
        """Return whether the action may happen now; a True starts the next interval."""
        now = self._clock()
        if self._last is not None and now - self._last < self._seconds:
            return False
        self._last = now
        return True
