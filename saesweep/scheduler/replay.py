"""Replay a recorded run: the same events must give the same decisions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from saesweep.forecast import Course
from saesweep.scheduler.decide import decide
from saesweep.scheduler.messages import (
    Action,
    Asked,
    BlockDone,
    Event,
    Failed,
    Opened,
    PolicyChanged,
    SlotsChanged,
    StopRequested,
)
from saesweep.scheduler.policy import Policy
from saesweep.scheduler.state import State
from saesweep.scheduler.trial import trial_from_json, trial_to_json

_KINDS: dict[str, type[Failed] | type[StopRequested]] = {kind.__name__: kind for kind in (Failed, StopRequested)}


def replay(state: State, events: Iterable[Event]) -> tuple[State, list[list[Action]]]:
    """Return the state after the events and the actions that answered each."""
    answers = []
    for event in events:
        state, actions = decide(state, event)
        answers.append(actions)
    return state, answers


def event_to_json(event: Event) -> dict[str, Any]:
    """Return an event as plain JSON values, its kind under `event`; reported values as exact text, which holds NaN too."""
    kind = type(event).__name__
    if isinstance(event, Opened):
        return {"event": kind, "trials": [trial_to_json(trial) for trial in event.trials]}
    if isinstance(event, BlockDone):
        values = {
            str(number): {str(rung): [repr(float(v)) for v in vs] for rung, vs in by_rung.items()}
            for number, by_rung in event.values.items()
        }
        tokens = {str(number): tokens_seen for number, tokens_seen in event.tokens_seen.items()}
        failed = {str(number): reason for number, reason in event.failed.items()}
        return {"event": kind, "tokens_seen": tokens, "values": values, "failed": failed, "worker": event.worker}
    if isinstance(event, SlotsChanged):
        tokens = {str(number): tokens_seen for number, tokens_seen in event.tokens_seen.items()}
        return {"event": kind, "n_slots": event.n_slots, "worker": event.worker, "tokens_seen": tokens}
    if isinstance(event, PolicyChanged):
        return {"event": kind, "policy": event.policy.to_json()}
    return {"event": kind, **asdict(event)}


def event_from_json(data: Mapping[str, Any]) -> Event:
    """Return the event that `event_to_json` described.

    Raises:
        ValueError: When the kind of event is unknown.
    """
    fields = {name: value for name, value in data.items() if name != "event"}
    if data["event"] == "Asked":
        return Asked(**{**fields, "course": Course.from_json(fields["course"])})
    if data["event"] == "Opened":
        return Opened(trials=tuple(trial_from_json(trial) for trial in fields["trials"]))
    if data["event"] == "BlockDone":
        values = {
            int(number): {int(rung): tuple(float(v) for v in vs) for rung, vs in by_rung.items()}
            for number, by_rung in fields["values"].items()
        }
        tokens_seen = {int(n): tokens for n, tokens in fields["tokens_seen"].items()}
        failed = {int(n): reason for n, reason in fields["failed"].items()}
        return BlockDone(tokens_seen=tokens_seen, values=values, failed=failed, worker=fields["worker"])
    if data["event"] == "SlotsChanged":
        tokens_seen = {int(n): tokens for n, tokens in fields["tokens_seen"].items()}
        return SlotsChanged(**{**fields, "tokens_seen": tokens_seen})
    if data["event"] == "PolicyChanged":
        return PolicyChanged(policy=Policy.from_json(fields["policy"]))
    if data["event"] not in _KINDS:
        raise ValueError(f"unknown scheduler event {data['event']!r}")
    return _KINDS[data["event"]](**fields)
