"""The run loop that ties everything together."""

from saesweep.driver.runner import Result, run

__all__ = ["Result", "run"]
