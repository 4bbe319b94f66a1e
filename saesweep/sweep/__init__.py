"""The run loop that ties everything together."""

from saesweep.sweep.result import Result
from saesweep.sweep.runner import run

__all__ = ["Result", "run"]
