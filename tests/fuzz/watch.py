"""What a reader of damaged files must not do: touch files outside its folder, start a program, call a network, unpickle."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_PROGRAMS = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "subprocess.Popen", "pty.spawn")
_NETWORK = ("socket.connect", "socket.bind", "socket.getaddrinfo")
_FORBIDDEN = (*_PROGRAMS, *_NETWORK, "pickle.find_class", "ctypes.dlopen")
_CHANGES = {"os.rename": 2, "os.remove": 1, "os.mkdir": 2, "os.rmdir": 1, "os.chmod": 2}
"""Event -> place of the folder's descriptor among its arguments; with one, `shutil.rmtree` has said which folder."""
_OTHER_CHANGES = ("shutil.rmtree", "os.link", "os.symlink", "os.truncate")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

_allowed: list[str] | None = None
_seen: list[str] = []
_is_installed = False


@contextmanager
def watched(*folders: Path) -> Iterator[None]:
    """Fail where the block does anything of that; it may write in these folders alone.

    CPython's audit events see every such call of the interpreter and of its standard library, whoever makes it.

    Raises:
        AssertionError: It did.
    """
    global _allowed, _is_installed
    if not _is_installed:
        sys.addaudithook(_audit)
        _is_installed = True
    _seen.clear()
    _allowed = [os.path.realpath(folder) for folder in folders]
    try:
        yield
    finally:
        _allowed = None
    assert not _seen, f"forbidden: {_seen}"


def tree_of(folder: Path) -> dict[str, tuple[int, int]]:
    """Return path, size and time of change of everything in a folder."""
    return {
        str(path.relative_to(folder)): ((status := path.stat()).st_size, status.st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _allowed is None:
        return
    if event in _FORBIDDEN:
        _seen.append(f"{event} {arguments[:1]!r}")
    elif event == "open":
        path, mode, flags = arguments
        if (flags or 0) & _WRITING if mode is None else set("wax+") & set(mode):
            _note(event, path)
    elif event in _OTHER_CHANGES or (event in _CHANGES and arguments[_CHANGES[event]] == -1):
        _note(event, arguments[0])


def _note(event: str, path: Any) -> None:
    if isinstance(path, int) or path == os.devnull:
        return
    real = os.path.realpath(os.fsdecode(path))
    if not any(real == folder or real.startswith(folder + os.sep) for folder in _allowed or ()):
        _seen.append(f"{event} {real}")
