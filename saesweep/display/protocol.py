"""What a display is."""

from __future__ import annotations

from types import TracebackType
from typing import Literal, Protocol

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
