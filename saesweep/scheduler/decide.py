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
    BlockDone,
    Complete,
    Event,
    Failed,
    Opened,
    Place,
    PolicyChanged,
    Prune,
    SlotsChanged,
    Stop,
    Suggested,
)
from saesweep.scheduler.policy import Policy
from saesweep.scheduler.refill import place, refill
from saesweep.scheduler.rungs import judge, with_evidence
from saesweep.scheduler.state import State
from saesweep.scheduler.trial import TrialState
from saesweep.scheduler.trials import Trials


def decide(state: State, event: Event) -> tuple[State, list[Action]]:
    """Return the state after an event and the actions to carry out, in order.

    Actions come as: prunes, completions, placements, asks, stop; each kind by trial number. The caller answers every
    `Ask` with a `Suggested`, in order, before the next block.

    Args:
        state: The sweep so far.
        event: What has happened.

    Raises:
        ValueError: When the event contradicts the state (a report of a trial that is not training, a missing report of
            a rung that came due, an answer that was not asked for).
    """
    if isinstance(event, Opened):
        return _opened(state, event)
    if isinstance(event, Suggested):
        return place(_suggested(state, event))
    if isinstance(event, BlockDone):
        return _block_done(state, event)
    if isinstance(event, Failed):
        failed = Prune(number=event.number, reason=event.reason)
        state = _pruned(state, [failed], failed=True)
        return _then_refill(_between_blocks(state, state.trials[event.number].worker), [failed])
    if isinstance(event, SlotsChanged):
        return refill(_resized(state, event))
    if isinstance(event, PolicyChanged):
        return refill(_under(state, event.policy))
    return replace(state, stopped=event.reason), [Stop(reason=event.reason)]


def _opened(state: State, event: Opened) -> tuple[State, list[Action]]:
    """Adopt known trials, place the training ones again, repeat unanswered asks."""
    # A stop that can be resumed, or that of a sweep whose policy now allows more trials, no longer holds.
    known = {**state.trials, **{trial.number: trial for trial in event.trials}}
    trials = Trials(known.values()) if event.trials else state.trials
    state = replace(state, trials=trials, pending={}, retrying={}, stopped=None, filling=tuple(state.workers))
    state = _out_of_lost_slots(state)
    placed: list[Action] = [
        Place(number=trial.number, slot=trial.slot, worker=trial.worker)
        for trial in state.with_status("training")
        if trial.slot is not None
    ]
    return _then_refill(state, placed)


def _suggested(state: State, event: Suggested) -> State:
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
    pending, retrying = dict(state.pending), dict(state.retrying)
    del pending[event.number]
    retrying.pop(event.number, None)
    return replace(state.updated([trial]), pending=pending, retrying=retrying)


def _block_done(state: State, event: BlockDone) -> tuple[State, list[Action]]:
    """Record all reports, complete, judge, refill: in this order, so that no trial's place in the block matters.

    What is decided concerns this worker alone: the others are in the middle of a block. What was reported concerns the
    trials of all, so that those of the other workers are judged when they come to the end of theirs.
    """
    state, failed = _recorded(_between_blocks(state, event.worker), event)
    pruned = [Prune(number=number, reason=reason) for number, reason in failed.items()]
    state = _pruned(state, pruned, failed=True)
    done = [t for t in state.training_on(event.worker) if t.tokens_seen >= state.policy.total_tokens]
    state = with_evidence(state.updated(replace(trial, status="complete", slot=None) for trial in done), done)
    has_news = any(event.values.values())
    if has_news or event.worker in state.unjudged:
        left = state.workers if has_news else state.unjudged
        unjudged = tuple(worker for worker in left if worker != event.worker)
        worst = judge(state, event.worker)
        state = replace(_pruned(state, worst), unjudged=unjudged)
        pruned += worst
    actions: list[Action] = [*sorted(pruned, key=lambda prune: prune.number)]
    actions += [Complete(number=trial.number) for trial in done]
    return _then_refill(state, actions)


def _between_blocks(state: State, worker: int | None = None) -> State:
    """Return the state in which the free slots of a worker are filled, and those of all workers that train nothing."""
    busy = state.trials.tally.training
    return replace(state, filling=tuple(one for one in state.workers if one == worker or one not in busy))


def _recorded(state: State, event: BlockDone) -> tuple[State, dict[int, str]]:
    """Return the state with the reports of a block, and the trials that failed in it with their reasons."""
    training = {trial.number for trial in state.training_on(event.worker)}
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


def _resized(state: State, event: SlotsChanged) -> State:
    """Return the state in which a worker's cohort has another size; it is between two blocks."""
    if event.n_slots < 0:
        raise ValueError(f"n_slots must be at least 0, but is {event.n_slots}")
    back = [replace(state.trials[number], tokens_seen=tokens) for number, tokens in event.tokens_seen.items()]
    workers = {**state.workers, event.worker: event.n_slots}
    return _between_blocks(_out_of_lost_slots(replace(state.updated(back), workers=workers)), event.worker)


def _out_of_lost_slots(state: State) -> State:
    """Return the state in which trials of lost slots (or without one) wait for a free slot."""
    lost = [
        trial
        for trial in state.with_status("training")
        if trial.slot is None or trial.slot >= state.workers.get(trial.worker, 0)
    ]
    return state.updated(replace(trial, status="waiting", slot=None) for trial in lost)


def _under(state: State, policy: Policy) -> State:
    """Return the state under other rules: what was to be asked, and a stop because all was asked, no longer hold."""
    return replace(state, policy=policy, pending={}, retrying={}, stopped=None)


def _then_refill(state: State, actions: list[Action]) -> tuple[State, list[Action]]:
    """Refill the freed slots and append what that takes."""
    state, more = refill(state)
    return state, actions + more
