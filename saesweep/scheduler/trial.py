"""One trial as the scheduler sees it; never altered in place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from saesweep.forecast import Course
from saesweep.status import DecidedStatus, LiveStatus, is_live


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialState:
    """One trial as the scheduler sees it."""

    number: int
    """Number of the trial, the same as in the study; counted from 0."""
    stratum: str
    """What it was asked for."""
    group: str
    """Its rivals are the trials of the same group: of its stream, and with matched L0 of its hook and target."""
    architecture: str
    """The quota is counted over trials of the same architecture."""
    course: Course
    """Its kind, and what of its schedule lies ahead at each rung."""
    status: LiveStatus | DecidedStatus = "waiting"
    """One that failed is `pruned` here, and `failed`."""
    worker: int = 0
    """Where it trains, or has trained last; counted from 0."""
    slot: int | None = None
    """Its place in the worker's cohort while `training`, counted from 0."""
    tokens_seen: int = 0
    """Training tokens it had seen at its last block boundary."""
    reports: Mapping[int, tuple[float, ...]] = field(default_factory=dict)
    """By rung index, what was measured there, in the order of the aim's metrics; finite. The last rung is the end."""
    pruned_at_rung: int | None = None
    """Index of the rung that pruned it; None where something else ended it."""
    failed: bool = False
    """It could not continue."""
    retry_of: int | None = None
    """The first trial with its settings, which failed; None for a trial that repeats none."""

    @property
    def live(self) -> bool:
        """Whether the trial has not ended."""
        return is_live(self.status)

    @property
    def first(self) -> int:
        """The first trial with its settings: itself, or the one that it repeats."""
        return self.number if self.retry_of is None else self.retry_of


_FIELDS = tuple(each.name for each in fields(TrialState))


def trial_to_json(trial: TrialState) -> dict[str, Any]:
    """Return a trial as plain JSON values; rung indices become strings, as JSON keys are."""
    found = {name: getattr(trial, name) for name in _FIELDS}
    found["course"] = dict(vars(trial.course))  # `asdict` takes ten times as long
    found["reports"] = {str(rung): list(values) for rung, values in trial.reports.items()}
    return found


def trial_from_json(data: Mapping[str, Any]) -> TrialState:
    """Return the trial that `trial_to_json` described."""
    reports = {int(r): tuple(v) for r, v in data["reports"].items()}
    return TrialState(**{**data, "reports": reports, "course": Course.from_json(data["course"])})
