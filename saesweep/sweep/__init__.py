"""The run loop that ties everything together."""

from saesweep.sweep.runner import Result, run

__all__ = ["Result", "run"]
