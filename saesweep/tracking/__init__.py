"""Trackers: listeners that carry a run's events to a metrics service. They never decide and never stop a run."""

from saesweep.tracking.wandb_tracker import WandbTracker, check_wandb

__all__ = ["WandbTracker", "check_wandb"]
