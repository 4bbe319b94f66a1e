"""One JSON object per event, for programs that watch a run."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, TextIO

from saesweep.display.timing import Throttle
from saesweep.events import Activity, Event

_COUNT_SECONDS = 1.0


class JsonDisplay:
    """Writes each event as one line of strict JSON: NaN and infinities become null.

    Args:
        stream: Where the lines go; flushed after each.
        clock: Returns monotonic seconds.
    """

    def __init__(self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._throttle = Throttle(_COUNT_SECONDS, clock)
        self._last_message = ""

    def __call__(self, event: Event) -> None:
        """Write one event; of an activity that counts, at most one line a second."""
        if isinstance(event, Activity):
            if event.message == self._last_message and not self._throttle.ready():
                return
            self._last_message = event.message
        self._stream.write(json_line(event.to_json()) + "\n")
        self._stream.flush()

    def __enter__(self) -> JsonDisplay:
        """Return itself; lines need no set-up."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to give back."""


def json_line(data: Mapping[str, Any]) -> str:
    """Return `data` as one line of strict JSON (RFC 8259 has no NaN)."""
    return json.dumps(_finite(data), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
