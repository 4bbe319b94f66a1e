"""No output at all."""

from __future__ import annotations

from types import TracebackType

from saesweep.events import Event


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
