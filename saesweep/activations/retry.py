"""A source that drops its connection is opened again where it was."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import TypeVar

from saesweep.hub import http_error

T = TypeVar("T")

WAITS_SECONDS = (1, 2, 4, 8, 16, 32)
"""How long to wait before each new attempt; a row that comes starts the count anew."""

_log = logging.getLogger("saesweep")


def resuming(open_at: Callable[[int], Iterator[T]], start: int, *, name: str) -> Iterator[T]:
    """Yield the items of `open_at(start)`; after a lost connection continue with `open_at` of the item that was due.

    Args:
        open_at: All items from a position on.
        start: The first position.
        name: What is read, for the log.

    Raises:
        OSError: The connection failed again after every wait; other errors, at once.
    """
    position, failures = start, 0
    while True:
        try:
            for item in open_at(position):
                yield item
                position, failures = position + 1, 0
            return
        except connection_errors() as error:
            if isinstance(error, (FileNotFoundError, PermissionError)) or failures == len(WAITS_SECONDS):
                raise
            wait = WAITS_SECONDS[failures]
            failures += 1
            _log.warning(
                "%s: the connection was lost after row %d (%s: %s); attempt %d of %d in %d s",
                name, position, type(error).__name__, error, failures, len(WAITS_SECONDS), wait,
            )  # fmt: skip
            time.sleep(wait)


@lru_cache
def connection_errors() -> tuple[type[Exception], ...]:
    """Return what the clients of the Hub raise when a connection fails: their HTTP libraries do not use OSError."""
    if find_spec("aiohttp") is None:  # fsspec's choice for plain URLs, where it is installed
        return (OSError, http_error())
    return (OSError, http_error(), import_module("aiohttp").ClientError)
