"""The run loop that ties everything together."""

from saesweep.driver.runner import run
from saesweep.result import Result

__all__ = ["Result", "run"]
