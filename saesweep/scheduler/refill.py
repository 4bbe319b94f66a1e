"""Which trials take the free slots, and which are asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from heapq import heapify, heappop, heapreplace

from saesweep.scheduler.messages import Action, Ask, Place, Stop
from saesweep.scheduler.state import State


def refill(state: State) -> tuple[State, list[Action]]:
    """Fill the free slots of workers between two blocks: waiting trials by number, then new ones; stop when nothing is left.

    Nothing happens once the sweep is stopped. New trials are asked in equal shares per stratum: the stratum that has
    had the fewest comes first, ties in the order of the strata.
    """
    if state.stopped is not None:
        return state, []
    state, actions = place(state)
    state, asks = _suggest(state)
    actions += asks
    if not state.pending and not state.trials.tally.n_live:
        # Trials that no stratum can supply (a finite grid) are not missing; those that the budget forbids are, as are retries.
        all_suggested = _next_stratum(state, _suggested_by_stratum(state)) is None and not _to_retry(state)
        state = replace(state, stopped="complete" if all_suggested else "tokens_budget")
        actions.append(Stop(reason=str(state.stopped)))
    return state, actions


def _free_slots(state: State) -> int:
    """Return how many slots are to be filled."""
    training = state.trials.tally.training
    return sum(state.workers[worker] - len(training.get(worker, ())) for worker in state.filling)


def _next_slots(state: State, n: int) -> list[tuple[int, int]]:
    """Return (worker, slot) of the first `n` slots to fill: always one of the worker with the fewest trials, its lowest."""
    training, slots = state.trials.tally.training, state.workers
    taken_on = {worker: len(training[worker]) if worker in training else 0 for worker in state.filling}
    open_workers = [(n_taken, worker) for worker, n_taken in taken_on.items() if n_taken < slots[worker]]
    if n == 1 and open_workers:
        open_workers = [min(open_workers)]
    heapify(open_workers)
    free: dict[int, Iterator[int]] = {}
    found: list[tuple[int, int]] = []
    while open_workers and len(found) < n:
        n_taken, worker = open_workers[0]
        if worker not in free:
            taken = {trial.slot for trial in state.training_on(worker)}
            free[worker] = iter([slot for slot in range(state.workers[worker]) if slot not in taken])
        found.append((worker, next(free[worker])))
        if n_taken + 1 < state.workers[worker]:
            heapreplace(open_workers, (n_taken + 1, worker))
        else:
            heappop(open_workers)
    return found


def place(state: State) -> tuple[State, list[Action]]:
    """Place waiting trials, the lowest number in the lowest slot.

    It is all that an answered ask takes: every other free slot has its ask, or none can be had.
    """
    waiting = state.trials.tally.waiting
    if not waiting or state.stopped is not None:
        return state, []
    placed = [
        replace(state.trials[number], status="training", worker=worker, slot=slot)
        for number, (worker, slot) in zip(waiting, _next_slots(state, len(waiting)), strict=False)
    ]
    actions: list[Action] = [Place(number=t.number, slot=t.slot, worker=t.worker) for t in placed if t.slot is not None]
    return state.updated(placed), actions


def _suggest(state: State) -> tuple[State, list[Action]]:
    """Ask for as many new trials as free slots can hold and the budget can finish."""
    lacking = _free_slots(state) - len(state.pending)
    if lacking <= 0:
        return state, []
    suggested = _suggested_by_stratum(state)
    pending, retrying = dict(state.pending), dict(state.retrying)
    affordable = _affordable(state)
    actions: list[Action] = []
    number = state.next_number
    for first in _to_retry(state)[: min(lacking, affordable)]:
        pending[number], retrying[number] = state.trials[first].stratum, first
        actions.append(Ask(number=number, stratum=pending[number], retry_of=first))
        number += 1
    while len(actions) < min(lacking, affordable):
        stratum = _next_stratum(state, suggested)
        if stratum is None:
            break
        suggested[stratum] += 1
        pending[number] = stratum
        actions.append(Ask(number=number, stratum=stratum))
        number += 1
    return replace(state, pending=pending, retrying=retrying), actions


def _to_retry(state: State) -> list[int]:
    """Return the first trials of those settings that have failed as often as they were tried, and may be tried again."""
    failed, pending = state.trials.tally.failed, set(state.retrying.values())
    return sorted(
        first
        for attempts in range(1, state.policy.retry_failed + 1)
        for first in failed.get(attempts, ())
        if first not in pending
        and state.trials[first].stratum in state.policy.strata  # else its stream is not the one that trains
    )


def _suggested_by_stratum(state: State) -> Counter[str]:
    """Count the trials asked of each stratum, answered or not; those that repeat a failed one come on top."""
    new = [stratum for number, stratum in state.pending.items() if number not in state.retrying]
    return Counter(new) + state.trials.tally.suggested


def _next_stratum(state: State, suggested: Counter[str]) -> str | None:
    """Return the stratum of the next new trial; None when all trials have been asked."""
    policy = state.policy
    number = sum(suggested.values())
    if number >= policy.n_trials:
        return None
    if number < len(policy.baseline_strata):
        return policy.baseline_strata[number]
    limits = policy.stratum_limits or (None,) * len(policy.strata)
    open_strata = [s for s, limit in zip(policy.strata, limits, strict=True) if limit is None or suggested[s] < limit]
    return min(open_strata, key=lambda s: suggested[s], default=None)


def _affordable(state: State) -> int:
    """Return how many more trials the tokens budget can finish, counting every live trial as if it ran to its end."""
    policy = state.policy
    if policy.tokens_budget is None:
        return policy.n_trials
    tally = state.trials.tally
    live = tally.n_live + len(state.pending)
    return max(0, (policy.tokens_budget - tally.ended_tokens) // policy.total_tokens - live)
