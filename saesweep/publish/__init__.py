"""Exported SAEs to the Hugging Face Hub, and back."""

from saesweep.publish.pull import pull
from saesweep.publish.push import Pushed, collect_run, push

__all__ = ["Pushed", "collect_run", "pull", "push"]
