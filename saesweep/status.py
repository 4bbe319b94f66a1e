"""The status of a trial, and of a run: one vocabulary for scheduler, study, driver, trackers and displays."""

from __future__ import annotations

from typing import Literal, get_args

LiveStatus = Literal["training", "waiting"]
"""The trial is in a slot of a worker, or waits for one."""
DecidedStatus = Literal["complete", "pruned"]
"""How scheduler and study see the end of a trial: it has trained to its end, or it was stopped before."""
EndedStatus = DecidedStatus | Literal["failed"]
"""How people see it: of those that were stopped, the ones that could not continue have failed."""
TrialStatus = LiveStatus | EndedStatus
RowStatus = TrialStatus | Literal["reference"]
"""A row of the leaderboard is a trial or a published SAE."""
RunStatus = Literal["complete", "interrupted", "already complete"]
"""How a run ended; one that was complete before has trained nothing. Until then its leaderboard says `running`."""

LIVE: tuple[LiveStatus, ...] = get_args(LiveStatus)
ENDED: tuple[EndedStatus, ...] = ("complete", "pruned", "failed")


def is_live(status: str) -> bool:
    """Return whether a trial has not ended."""
    return status in LIVE


def run_has_ended(status: str) -> bool:
    """Return whether a run is over, whatever it came to."""
    return status in get_args(RunStatus)
