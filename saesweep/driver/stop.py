"""Ctrl-C: while training, once finishes the block and saves, twice stops now; at any other time once stops now."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any


class StopFlag:
    """Catches SIGINT and SIGTERM while a sweep runs in the main thread.

    Within `finishing_blocks` the first signal sets `requested`. Every other one raises KeyboardInterrupt where the program
    is: set-up (tokenising, splitting, loading, estimating norms) and the last measurements have nothing to finish first.
    """

    def __init__(self) -> None:
        self.requested = False
        self._is_training = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopFlag:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def finishing_blocks(self) -> Iterator[None]:
        """Let one signal be answered at the end of a block."""
        self._is_training = True
        try:
            yield
        finally:
            self._is_training = False

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        is_first, self.requested = not self.requested, True
        if not (is_first and self._is_training):
            raise KeyboardInterrupt
