"""Publishing exported SAEs on the Hugging Face Hub."""

from saesweep.publish.collect import collect_run
from saesweep.publish.push import Pushed, push

__all__ = ["Pushed", "collect_run", "push"]
