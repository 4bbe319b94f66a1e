"""When a display acts: at most once per interval, and now and then while the main thread waits."""

from __future__ import annotations

import threading
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


class Ticker:
    """Calls `tick` every `seconds` between `start` and `stop`; the first exception ends it.

    Args:
        tick: Must be quick: it takes time from the main thread.
        seconds: The interval.
    """

    def __init__(self, tick: Callable[[], None], seconds: float) -> None:
        self._tick = tick
        self._seconds = seconds
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to tick."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="saesweep-display", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Tick no more; a tick in progress is waited for."""
        self._stop.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._seconds):
            try:
                self._tick()
            except Exception:  # a closed terminal: the main thread meets it too, and says so
                return
