"""What a display is, the one that shows nothing, and the one place where a display is chosen."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Literal, Protocol, TextIO

from saesweep.display.text import ASCII_TWINS
from saesweep.errors import UserError
from saesweep.events import Event

DisplayKind = Literal["auto", "live", "plain", "json", "none"]
"""`live`: a leaderboard that updates in place. `plain`: lines of text. `json`: one JSON object per event. `none`: silence."""

DISPLAY_KINDS: tuple[DisplayKind, ...] = ("auto", "live", "plain", "json", "none")


class Display(Protocol):
    """Listens to the events of one run and shows them; used as a context manager around the run."""

    def __call__(self, event: Event) -> None:
        """Show one event."""

    def __enter__(self) -> Display:
        """Take the screen."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the screen back, whatever happened."""


class SilentDisplay:
    """Shows nothing."""

    def __call__(self, event: Event) -> None:
        """Show nothing."""

    def __enter__(self) -> SilentDisplay:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to give back."""


ENVIRONMENT_VARIABLE = "SAESWEEP_DISPLAY"


def make_display(
    kind: DisplayKind = "auto",
    stream: TextIO | None = None,
    env: Mapping[str, str] | None = None,
    *,
    verbose: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> Display:
    """Return the display of a run.

    `auto` is the kind in the environment variable SAESWEEP_DISPLAY where that is set; else live on a terminal and in a
    notebook, and plain off one, in CI and on a terminal that cannot move its cursor or show the characters.

    Args:
        kind: What to show; an explicit kind wins over the environment.
        stream: Where to show it; standard output when None.
        env: Environment variables; those of the process when None.
        verbose: Live and plain also say when trials start and checkpoints are saved.
        clock: Returns monotonic seconds.

    Raises:
        UserError: No such kind, or `live` was asked for on a stream that cannot show its characters.
    """
    # A notebook's cell has outputs of its own; a stream that was asked for is still that stream.
    is_cell = stream is None and in_notebook()
    stream = sys.stdout if stream is None else stream
    if stream is None:  # as in a program without a console
        return SilentDisplay()
    env = os.environ if env is None else env
    chosen = _resolve(kind, stream, env, is_cell)
    if chosen == "live" and is_cell:
        from saesweep.display.notebook import NotebookDisplay

        return NotebookDisplay(verbose=verbose, clock=clock)
    if chosen == "live":
        from saesweep.display.live import LiveDisplay, make_console

        if not _shows_all_characters(stream):
            raise UserError(
                f"display live needs a stream that can show {''.join(ASCII_TWINS)}, and this one is encoded as "
                f"{stream.encoding}; set PYTHONIOENCODING=utf-8, or choose the display plain"
            )
        return LiveDisplay(make_console(stream, env), verbose=verbose, clock=clock)
    if chosen == "plain":
        from saesweep.display.plain import PlainDisplay

        return PlainDisplay(stream, verbose=verbose, clock=clock)
    if chosen == "json":
        from saesweep.display.json_lines import JsonDisplay

        return JsonDisplay(stream, clock=clock)
    return SilentDisplay()


def is_live_terminal(stream: TextIO, env: Mapping[str, str]) -> bool:
    """Return whether a table that updates in place works on this stream."""
    return (
        stream.isatty()
        and env.get("CI", "").lower() in ("", "0", "false")
        and env.get("TERM", "") != "dumb"
        and not in_notebook()  # a cell's text output has no cursor
        and _shows_all_characters(stream)
    )


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    if "ipykernel" not in sys.modules or "IPython" not in sys.modules:
        return False
    shell = sys.modules["IPython"].get_ipython()
    return shell is not None and hasattr(shell, "kernel")


def _resolve(kind: DisplayKind, stream: TextIO, env: Mapping[str, str], is_cell: bool) -> DisplayKind:
    if kind not in DISPLAY_KINDS:
        raise UserError(f"display {kind!r} does not exist; choose one of {', '.join(DISPLAY_KINDS)}")
    if kind != "auto":
        return kind
    wish = env.get(ENVIRONMENT_VARIABLE, "")
    for known in DISPLAY_KINDS:
        if wish == known and known != "auto":
            return known
    if wish not in ("", "auto"):
        raise UserError(
            f"the environment variable {ENVIRONMENT_VARIABLE} is {wish!r}; set it to one of {', '.join(DISPLAY_KINDS)}"
        )
    return "live" if is_cell or is_live_terminal(stream, env) else "plain"


def _shows_all_characters(stream: TextIO) -> bool:
    try:
        "".join(ASCII_TWINS).encode(getattr(stream, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True
