"""Trackers: listeners that carry a run's events to a metrics service. They never decide and never stop a run."""

from saesweep.tracking.registered import register_tracker, registered_trackers
from saesweep.tracking.wandb_tracker import WandbTracker, abandon_uploads, check_wandb, is_uploading

__all__ = ["WandbTracker", "abandon_uploads", "check_wandb", "is_uploading", "register_tracker", "registered_trackers"]
