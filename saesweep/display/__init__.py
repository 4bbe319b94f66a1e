"""What a run shows while it is under way and at its end. Rich is imported in this room alone, and only when it is needed."""

from saesweep.display.choose import DISPLAY_KINDS, Display, DisplayKind, is_live_terminal, make_display
from saesweep.display.table import leaderboard_table, render_text

__all__ = [
    "DISPLAY_KINDS",
    "Display",
    "DisplayKind",
    "is_live_terminal",
    "leaderboard_table",
    "make_display",
    "render_text",
]
