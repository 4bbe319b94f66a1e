"""Python's garbage collector waits while very many objects are made that are all kept."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused_collection() -> Iterator[None]:
    """Collect no cyclic garbage meanwhile.

    Each time that the number of objects has grown by a quarter, the collector walks through all of them. Reading a study of
    10,000 trials takes twice as long that way, and nothing is found.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
