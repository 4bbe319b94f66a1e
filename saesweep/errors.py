"""The two kinds of failure: a user's mistake (one clean message, exit code 2) and a bug (a traceback).

Everything that a person can mend by changing a file, an argument or a folder is a `UserError`. Faults of the surroundings (the
disk, permissions, a lock, a database file) become a message in whatever way they reach us.
"""

from __future__ import annotations

import errno
import re
import sqlite3
from dataclasses import dataclass

from saesweep.messages import masked, presentable, printable

_SHOWN = 160
"""Characters of a longer line that are shown."""


class UserError(Exception):
    """A mistake that the user can mend; printed as its message alone, with exit code 2."""

    def __str__(self) -> str:
        """Return the message, presentable: what files and libraries say may hold anything."""
        return presentable(super().__str__())


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One located mistake in an experiment file."""

    path: str
    """Dotted path of the key, e.g. `space.lr.float`."""
    message: str
    """What is wrong, the rule, and the fix."""
    file: str | None = None
    """File that the value came from; `--set` for a command-line override."""
    line: int | None = None
    """Line, counted from 1."""
    column: int | None = None
    """Column, counted from 1."""
    source: str | None = None
    """The text of that line, shown with a caret."""

    def render(self) -> str:
        """Return the compiler-style text: `file:line:col: path: message`, the line and a caret."""
        where = ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)
        head = ": ".join(part for part in (where, self.path, self.message) if part)
        if self.source is None or self.column is None:
            return head
        # Of an endless line the part around the mistake; each character as wide as it is printed, the caret below it.
        start = max(0, self.column - 1 - _SHOWN // 2) if len(self.source) > _SHOWN else 0
        before = printable(masked(self.source[start : self.column - 1]))
        after = printable(masked(self.source[self.column - 1 : start + _SHOWN]))
        return f"{head}\n    {before}{after}\n    {' ' * len(before)}^"


class ExperimentError(UserError):
    """All mistakes found in one experiment file, reported together.

    Attributes:
        problems: The located mistakes, in the order of the file.
    """

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        count = f"{len(problems)} mistake{'s' if len(problems) != 1 else ''}"
        super().__init__("\n".join([*(p.render() for p in problems), count]))


STUDY_FIX = "restore it; or delete it where checkpoints/ beside it has a checkpoint, and `saesweep run` makes it again"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_FULL_TEXTS = ("no space left on device", "database or disk is full", "disk quota exceeded")
_FIXES = {
    errno.EROFS: "make the file system writable, or choose another place",
    errno.EACCES: "change the permissions, or choose another place",
    errno.EPERM: "change the permissions, or choose another place",
    errno.ENOENT: "it was moved or removed; put it back, or name another place",
    errno.ENOTDIR: "a file is where a folder must be; move it, or choose another place",
    errno.EISDIR: "a folder is where a file must be; move it, or choose another place",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMFILE: "raise the limit of open files (`ulimit -n`)",
    errno.ENFILE: "raise the limit of open files of the machine",
    errno.EIO: "check the disk",
    errno.ESTALE: "mount the file system again",
}
_OS_ERROR = re.compile(r"\(os error (\d+)\)")
"""How safetensors names the error of the operating system that it met."""


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says; the name of its class where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def fault_of(error: BaseException | None) -> str | None:
    """Return what the surroundings did, and what to do about it, in one line; None where an error says nothing of them.

    Args:
        error: What was raised. What it was raised from counts as well: Optuna, SQLAlchemy and `datasets` wrap errors.
    """
    while error is not None:
        found = _fault(error)
        if found is not None:
            return found
        error = error.__cause__
    return None


def _fault(error: BaseException) -> str | None:
    text = " ".join(str(error).split())
    if isinstance(error, sqlite3.Error):
        return _of_sqlite(text)
    wrapped = _OS_ERROR.search(text)
    number = error.errno if isinstance(error, OSError) else int(wrapped[1]) if wrapped else None
    if number in _FULL or any(part in text.lower() for part in _FULL_TEXTS):
        place = f"{error.filename}: " if isinstance(error, OSError) and error.filename is not None else ""
        return f"{place}the disk is full; free some space"
    if isinstance(error, OSError):
        places = [str(name) for name in (error.filename, error.filename2) if name is not None]
        place = " -> ".join(places)
        reason = error.strerror or text or type(error).__name__
        fix = _FIXES.get(number or 0)
        return ": ".join([place, reason] if place else [reason]) + (f"; {fix}" if fix else "")
    if number is not None:
        return f"{text}; {_FIXES.get(number, 'check the file and the disk')}"
    return None


def _of_sqlite(text: str) -> str:
    """Say what SQLite says, whose errors name no file."""
    lower = text.lower()
    if "locked" in lower or "busy" in lower:
        return (
            "the study (study.db) has been locked by another program for over a minute; "
            "close what has it open, such as a dashboard or a database browser"
        )
    if any(part in lower for part in _FULL_TEXTS):
        return "the study (study.db): the disk is full; free some space"
    if "readonly" in lower or "unable to open" in lower or "disk i/o" in lower:
        return f"the study (study.db) cannot be written: {text}; check its permissions, its folder and the disk"
    return f"the study (study.db) is damaged: {text}; {STUDY_FIX}"
