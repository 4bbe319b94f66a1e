"""One line of progress with rate and time left: rewritten in place on a terminal, a new line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO

from saesweep.display.text import duration, percent, short_rate
from saesweep.display.timing import Throttle
from saesweep.messages import short_count

_TERMINAL_SECONDS, _LOG_SECONDS = 0.5, 30.0


class ProgressLine:
    """Shows how far a long command is.

    Args:
        unit: What is counted.
        stream: Where to write; standard error when left out, so that piped output stays clean.
        clock: Returns monotonic seconds.
    """

    def __init__(self, unit: str, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._unit = unit
        self._stream = stream or sys.stderr
        self._in_place = self._stream.isatty()
        self._clock = clock
        self._throttle = Throttle(_TERMINAL_SECONDS if self._in_place else _LOG_SECONDS, clock)
        self._first: tuple[float, int] | None = None
        self._width = 0

    def update(self, done: int, total: int | None) -> None:
        """Say that `done` of `total` (None where it is not known) are there, if it is time to say so."""
        if self._first is None:
            self._first = (self._clock(), done)  # what an earlier start did says nothing about the rate
        if not self._throttle.ready() and done != total:
            return
        seconds, before = self._clock() - self._first[0], self._first[1]
        rate = (done - before) / seconds if seconds > 0 else float("nan")
        text = f"{short_count(done)} {self._unit}"
        if total is not None:
            text = f"{short_count(done)} of {short_count(total)} {self._unit} ({percent(done, total)})"
        text += f", {short_rate(rate)}/s"
        if total is not None and done < total and rate > 0:
            text += f", {duration((total - done) / rate)} left"
        self._write(text)

    def close(self) -> None:
        """End the line."""
        if self._in_place and self._width:
            self._stream.write("\n")
            self._stream.flush()
            self._width = 0

    def _write(self, text: str) -> None:
        if self._in_place:
            self._stream.write("\r" + text.ljust(self._width))
            self._width = len(text)
        else:
            self._stream.write(text + "\n")
        self._stream.flush()
