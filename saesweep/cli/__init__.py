"""The `saesweep` command: one file per subcommand, nothing heavy imported before a command needs it."""

from saesweep.cli.entry import main

__all__ = ["main"]
