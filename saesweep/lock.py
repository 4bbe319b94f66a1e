"""A lock on a file, that the operating system drops with the process.

Not by `filelock`: its releases of the last years, any of which a user may have through torch, empty the file at every attempt,
so that nobody can say who holds it, follow links, or put a file that outlives a killed process in the place of a lock where a
file system has none.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def take(path: Path, taken: Callable[[str], Exception]) -> int:
    """Take the lock of a file, which is made where it is missing; closing the descriptor gives it back.

    Args:
        path: The file. A link is not followed.
        taken: Makes the error of a lock that another process holds, from what that process wrote into the file.

    Returns:
        The descriptor of the open file.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another process"
        os.close(descriptor)
        raise taken(holder) from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"process {os.getpid()} on {os.uname().nodename}".encode())
    return descriptor


@contextmanager
def held(path: Path, taken: Callable[[str], Exception]) -> Iterator[None]:
    """Hold the lock of a file meanwhile; the arguments are those of `take`."""
    descriptor = take(path, taken)
    try:
        yield
    finally:
        os.close(descriptor)
