"""Typed events of a run."""

from saesweep.events.bus import EventBus, Listener
from saesweep.events.types import (
    BlockDone,
    CheckpointSaved,
    Event,
    MatchedEntry,
    Note,
    ReferenceRow,
    Row,
    RowStatus,
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
    "MatchedEntry",
    "Note",
    "ReferenceRow",
    "Row",
    "RowStatus",
    "RunEnded",
    "RunStarted",
    "SnapshotSaved",
    "TrialEnded",
    "TrialMeasured",
    "TrialStarted",
    "TrialStatus",
    "TrialTrained",
]
