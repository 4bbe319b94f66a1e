"""`decide(state, event) -> (state, actions)`: every decision of a sweep, with no I/O, no clock and no chance.

The same state and event always give the same answer, so that a recorded run can be replayed decision by decision, and a
run that was killed takes the decisions again that it had taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isfinite

from saesweep.scheduler.messages import (
    Action,
    Asked,
    BlockDone,
    Complete,
    Event,
    Failed,
    Opened,
    Place,
    Prune,
    SlotsChanged,
    Stop,
    StopRequested,
)
from saesweep.scheduler.refill import refill
from saesweep.scheduler.rungs import judge, with_evidence
from saesweep.scheduler.state import State, TrialState


def decide(state: State, event: Event) -> tuple[State, list[Action]]:
    """Return the state after an event and the actions to carry out, in order.

    Actions come as: prunes, completions, placements, asks, stop; each kind by trial number. The caller answers every
    `Ask` with an `Asked`, in order, before the next block.

    Args:
        state: The sweep so far.
        event: What has happened.

    Raises:
        ValueError: When the event contradicts the state (a report of a trial that is not training, a missing report of
            a rung that came due, an answer that was not asked for).
    """
    if isinstance(event, Opened):
        return _opened(state, event)
    if isinstance(event, Asked):
        return refill(_asked(state, event))
    if isinstance(event, BlockDone):
        return _block_done(state, event)
    if isinstance(event, Failed):
        failed = Prune(number=event.number, reason=event.reason)
        return _then_refill(_pruned(state, [failed], failed=True), [failed])
    if isinstance(event, SlotsChanged):
        return refill(_resized(state, event.n_slots))
    return _stop_requested(state, event)


def _opened(state: State, event: Opened) -> tuple[State, list[Action]]:
    """Adopt known trials, place the training ones again, repeat unanswered asks."""
    if state.final:
        return state, [Stop(reason=str(state.stopped))]
    # A stop that can be resumed, or that of a sweep whose policy now allows more trials, no longer holds.
    state = replace(state.updated(event.trials), pending={}, retrying={}, stopped=None)
    if sorted(state.trials) != list(range(len(state.trials))):
        raise ValueError(f"trial numbers must be 0 to {len(state.trials) - 1}, but are {sorted(state.trials)}")
    state = _resized(state, state.n_slots)
    placed: list[Action] = [
        Place(number=trial.number, slot=trial.slot) for trial in state.with_status("training") if trial.slot is not None
    ]
    return _then_refill(state, placed)


def _asked(state: State, event: Asked) -> State:
    """Record an answered ask as a waiting trial."""
    expected = (len(state.trials), state.pending.get(len(state.trials)))
    if (event.number, event.stratum) != expected or event.retry_of != state.retrying.get(event.number):
        raise ValueError(f"trial {event.number} of stratum {event.stratum!r} answers an ask for {expected}")
    trial = TrialState(
        number=event.number,
        stratum=event.stratum,
        group=event.group,
        architecture=event.stratum if event.architecture is None else event.architecture,
        course=event.course,
        retry_of=event.retry_of,
    )
    pending = {number: stratum for number, stratum in state.pending.items() if number != event.number}
    retrying = {number: first for number, first in state.retrying.items() if number != event.number}
    return replace(state.updated([trial]), pending=pending, retrying=retrying)


def _block_done(state: State, event: BlockDone) -> tuple[State, list[Action]]:
    """Record all reports, complete, judge, refill: in this order, so that no trial's place in the block matters."""
    state, failed = _recorded(state, event)
    pruned = [Prune(number=number, reason=reason) for number, reason in failed.items()]
    state = _pruned(state, pruned, failed=True)
    done = [t for t in state.with_status("training") if t.tokens_seen >= state.policy.total_tokens]
    state = with_evidence(state.updated(replace(trial, status="complete", slot=None) for trial in done), done)
    if any(event.values.values()):
        worst = judge(state)
        state = _pruned(state, worst)
        pruned += worst
    actions: list[Action] = [*sorted(pruned, key=lambda prune: prune.number)]
    actions += [Complete(number=trial.number) for trial in done]
    return _then_refill(state, actions)


def _recorded(state: State, event: BlockDone) -> tuple[State, dict[int, str]]:
    """Return the state with the reports of a block, and the trials that failed in it with their reasons."""
    training = {trial.number for trial in state.with_status("training")}
    named = {*event.tokens_seen, *event.values, *event.failed}
    if set(event.tokens_seen) != training or named != training:
        raise ValueError(f"a block reports trials {sorted(named)}, but {sorted(training)} are training")
    measured = [values for by_rung in event.values.values() for values in by_rung.values()]
    if any(len(values) != len(state.policy.aim.metrics) for values in measured):
        raise ValueError(f"a report has one value for each of {', '.join(state.policy.aim.metrics)}")
    updated, failed = [], dict(event.failed)
    for number in sorted(training):
        trial = state.trials[number]
        values = event.values.get(number, {})
        if number not in failed:
            _check_reports(state, number, event.tokens_seen[number], values)
        finite = {rung: tuple(vs) for rung, vs in values.items() if all(isfinite(v) for v in vs)}
        if len(finite) < len(values):
            failed.setdefault(number, "a value that it reported is not finite")
        # A trial that fell back to an older checkpoint passes a rung twice: the first report stands.
        reports = {**finite, **trial.reports}
        updated.append(replace(trial, tokens_seen=event.tokens_seen[number], reports=reports))
    return state.updated(updated), failed


def _check_reports(state: State, number: int, tokens_seen: int, values: Mapping[int, tuple[float, ...]]) -> None:
    """Raise a ValueError where a report is missing or too early."""
    due = state.due_rungs(number, tokens_seen)
    missing = [rung for rung in due if rung not in values]
    early = [rung for rung in values if rung not in due and rung not in state.trials[number].reports]
    if missing or early:
        raise ValueError(f"trial {number} at {tokens_seen} tokens: rungs {missing} not reported, {early} not reached")


def _pruned(state: State, prunes: Sequence[Prune], *, failed: bool = False) -> State:
    """Return the state in which these live trials have ended; `failed` where they could not continue."""
    ended = []
    for prune in prunes:
        trial = state.trials.get(prune.number)
        if trial is None or not trial.live:
            status = "unknown" if trial is None else trial.status
            raise ValueError(f"trial {prune.number} is {status} and cannot fail or be pruned")
        ended.append(replace(trial, status="pruned", slot=None, pruned_at_rung=prune.rung, failed=failed))
    return state.updated(ended)


def _resized(state: State, n_slots: int) -> State:
    """Return the state of a cohort of `n_slots`: trials of lost slots (or without one) wait for a free slot."""
    if n_slots < 1:
        raise ValueError(f"n_slots must be at least 1, but is {n_slots}")
    lost = [t for t in state.with_status("training") if t.slot is None or t.slot >= n_slots]
    return replace(state.updated(replace(t, status="waiting", slot=None) for t in lost), n_slots=n_slots)


def _stop_requested(state: State, event: StopRequested) -> tuple[State, list[Action]]:
    """Stop asking and placing; end the live trials where the stop is final."""
    actions: list[Action] = []
    if event.final:
        live = sorted(trial.number for trial in state.trials.values() if trial.live)
        prunes = [Prune(number=number, reason=event.reason) for number in live]
        state, actions = _pruned(state, prunes), [*prunes]
    return replace(state, stopped=event.reason, final=event.final), [*actions, Stop(reason=event.reason)]


def _then_refill(state: State, actions: list[Action]) -> tuple[State, list[Action]]:
    """Refill the freed slots and append what that takes."""
    state, more = refill(state)
    return state, actions + more
