"""`progress.json`: how far a run is, for whoever watches it. Advice only: nothing is resumed from it, and it may be stale or torn."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

NAME = "progress.json"
_WRITE_SECONDS = 0.5
_MAX_BYTES = 1_000_000


class ProgressFile:
    """Written at most twice a second, in place and unflushed: a disk that is slow or full must not slow a run down.

    Args:
        folder: The run directory.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._written = -_WRITE_SECONDS

    def write(self, data: Mapping[str, Any], *, now: bool = False) -> None:
        """Write the latest news, if it is time; `now` does not wait for that."""
        if not now and time.monotonic() - self._written < _WRITE_SECONDS:
            return
        self._written = time.monotonic()
        text = json.dumps({"time_seconds": round(time.time(), 3), **data})
        with suppress(OSError):
            # The folder is not made where it is gone, and a link that somebody put there is not followed.
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o666)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)


def read_progress(folder: Path) -> dict[str, Any]:
    """Return the latest news of a run; nothing where there are none, or where they are being written."""
    try:
        with (folder / NAME).open(encoding="utf-8") as file:
            found = json.loads(file.read(_MAX_BYTES))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def is_dead(folder: Path) -> bool:
    """Return whether the process that held a run directory is known not to run any more.

    The lock names it; taking the lock to find out would get into the way of a run that begins.
    """
    try:
        words = (folder / "lock").read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return False
    if len(words) != 4 or not words[1].isdecimal() or words[3] != os.uname().nodename:
        return False
    try:
        os.kill(int(words[1]), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
