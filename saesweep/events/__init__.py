"""Typed events of a run."""

from saesweep.events.bus import EventBus, Listener
from saesweep.events.types import (
    BlockDone,
    CheckpointSaved,
    Event,
    Note,
    Row,
    RunEnded,
    RunStarted,
    SnapshotSaved,
    TrialEnded,
    TrialMeasured,
    TrialStarted,
    TrialStatus,
    TrialTrained,
)

__all__ = [
    "BlockDone",
    "CheckpointSaved",
    "Event",
    "EventBus",
    "Listener",
    "Note",
    "Row",
    "RunEnded",
    "RunStarted",
    "SnapshotSaved",
    "TrialEnded",
    "TrialMeasured",
    "TrialStarted",
    "TrialStatus",
    "TrialTrained",
]
