"""A full disk, recognised whoever meets it first: the file system, safetensors or SQLite."""

from __future__ import annotations

import errno

_MESSAGES = ("no space left on device", "database or disk is full", "disk quota exceeded")


def is_disk_full(error: BaseException | None) -> bool:
    """Return whether an error, or what it was raised from, says that no space is left to write to."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if any(text in str(error).lower() for text in _MESSAGES):
            return True
        error = error.__cause__ or error.__context__
    return False
