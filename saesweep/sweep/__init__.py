"""The run loop that ties everything together."""

from saesweep.sweep.run import Result, run

__all__ = ["Result", "run"]
