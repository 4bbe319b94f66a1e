"""Exported SAEs to the Hugging Face Hub, and back."""

from saesweep.publish.collect import collect_run
from saesweep.publish.pull import pull
from saesweep.publish.push import Pushed, push

__all__ = ["Pushed", "collect_run", "pull", "push"]
