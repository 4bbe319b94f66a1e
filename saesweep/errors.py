"""The two kinds of failure: a user's mistake (one clean message, exit code 2) and a bug (a traceback).

Everything that a person can mend by changing a file, an argument or a folder is a `UserError`.
"""

from __future__ import annotations

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
