"""Which trials take the free slots, and which are asked for."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from saesweep.scheduler.messages import Action, Ask, Place, Stop
from saesweep.scheduler.state import State, TrialState


def refill(state: State) -> tuple[State, list[Action]]:
    """Fill the free slots of workers between two blocks: waiting trials by number, then new ones; stop when nothing is left.

    Nothing happens once the sweep is stopped. New trials are asked in equal shares per stratum: the stratum that has
    had the fewest comes first, ties in the order of the strata.
    """
    if state.stopped is not None:
        return state, []
    state, actions = _place(state)
    state, asks = _ask(state)
    actions += asks
    if not state.pending and not state.live_trials:
        # Trials that no stratum can supply (a finite grid) are not missing; those that the budget forbids are, as are retries.
        asked_all = _next_stratum(state, _asked_by_stratum(state)) is None and not _to_retry(state)
        state = replace(state, stopped="complete" if asked_all else "tokens_budget")
        actions.append(Stop(reason=str(state.stopped)))
    return state, actions


def _free_slots(state: State) -> list[tuple[int, int]]:
    """Return (worker, slot) of the slots to fill, those of the workers with the fewest trials first."""
    taken = {(trial.worker, trial.slot) for trial in state.live_trials if trial.status == "training"}
    n_taken = Counter(worker for worker, _ in taken)
    found = []
    for worker in state.filling:
        free = [slot for slot in range(state.workers[worker]) if (worker, slot) not in taken]
        found += [(n_taken[worker] + position, worker, slot) for position, slot in enumerate(free)]
    return [(worker, slot) for _, worker, slot in sorted(found)]


def _place(state: State) -> tuple[State, list[Action]]:
    """Place waiting trials, the lowest number in the lowest slot."""
    placed = [
        replace(trial, status="training", worker=worker, slot=slot)
        for trial, (worker, slot) in zip(state.with_status("waiting"), _free_slots(state), strict=False)
    ]
    actions: list[Action] = [Place(number=t.number, slot=t.slot, worker=t.worker) for t in placed if t.slot is not None]
    return state.updated(placed) if placed else state, actions


def _ask(state: State) -> tuple[State, list[Action]]:
    """Ask for as many new trials as free slots can hold and the budget can finish."""
    wanted = len(_free_slots(state)) - len(state.pending)
    if wanted <= 0:
        return state, []
    asked = _asked_by_stratum(state)
    pending, retrying = dict(state.pending), dict(state.retrying)
    affordable = _affordable(state)
    actions: list[Action] = []
    number = state.next_number
    for first in _to_retry(state)[: min(wanted, affordable)]:
        pending[number], retrying[number] = state.trials[first].stratum, first
        actions.append(Ask(number=number, stratum=pending[number], retry_of=first))
        number += 1
    while len(actions) < min(wanted, affordable):
        stratum = _next_stratum(state, asked)
        if stratum is None:
            break
        asked[stratum] += 1
        pending[number] = stratum
        actions.append(Ask(number=number, stratum=stratum))
        number += 1
    return replace(state, pending=pending, retrying=retrying), actions


def _to_retry(state: State) -> list[int]:
    """Return the first trials of those settings that have failed as often as they were tried, and may be tried again."""
    if not state.policy.retry_failed:
        return []
    attempts: dict[int, list[TrialState]] = {}
    for trial in state.trials.values():
        attempts.setdefault(trial.number if trial.retry_of is None else trial.retry_of, []).append(trial)
    return [
        first
        for first, own in attempts.items()
        if all(trial.failed for trial in own)
        and len(own) <= state.policy.retry_failed
        and first not in state.retrying.values()
        and own[0].stratum in state.policy.strata  # else its stream is not the one that trains
    ]


def _asked_by_stratum(state: State) -> Counter[str]:
    """Count the trials asked of each stratum, answered or not; those that repeat a failed one come on top."""
    new = [stratum for number, stratum in state.pending.items() if number not in state.retrying]
    return Counter(new) + Counter(trial.stratum for trial in state.trials.values() if trial.retry_of is None)


def _next_stratum(state: State, asked: Counter[str]) -> str | None:
    """Return the stratum of the next new trial; None when all trials have been asked."""
    policy = state.policy
    number = sum(asked.values())
    if number >= policy.n_trials:
        return None
    if number < len(policy.baseline_strata):
        return policy.baseline_strata[number]
    limits = policy.stratum_limits or (None,) * len(policy.strata)
    open_strata = [s for s, limit in zip(policy.strata, limits, strict=True) if limit is None or asked[s] < limit]
    return min(open_strata, key=lambda s: asked[s], default=None)


def _affordable(state: State) -> int:
    """Return how many more trials the tokens budget can finish, counting every live trial as if it ran to its end."""
    policy = state.policy
    if policy.tokens_budget is None:
        return policy.n_trials
    live = sum(trial.live for trial in state.trials.values()) + len(state.pending)
    ended = sum(trial.tokens_seen for trial in state.trials.values() if not trial.live)
    return max(0, (policy.tokens_budget - ended) // policy.total_tokens - live)
