"""Which live trials are pruned: those that will hardly end among what the objective keeps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from saesweep.forecast import Moments, Table, shipped_table
from saesweep.scheduler.dominance import dominates
from saesweep.scheduler.messages import Prune
from saesweep.scheduler.outlook import Contender, Outlook, contenders, is_feasible, outlook, report_of
from saesweep.scheduler.reason import reason_of
from saesweep.scheduler.state import State, TrialState

_NO_HOPE = 1e-3
"""Probability of being feasible below which a trial is not kept for want of a better one."""


def with_evidence(state: State, finished: Sequence[TrialState]) -> State:
    """Return the state that has learned from trials that have just finished what happens between a rung and the end."""
    aim, end, evidence = state.policy.aim, state.policy.end_rung, dict(state.evidence)
    for trial in finished:
        for rung in [rung for rung in trial.reports if rung != end and end in trial.reports]:
            for metric in aim.metrics:
                before, after = (report_of(trial, aim, metric, stop) for stop in (rung, end))
                moments = evidence.get(before.key, Moments())
                evidence[before.key] = moments.plus(before.features, after.scaled - before.scaled)
    return replace(state, evidence=evidence) if finished else state


def judge(state: State) -> list[Prune]:
    """Return the live trials to prune, each with its reason, by trial number.

    All live trials are judged at once, by their latest reports, whenever some have reported: what was learned since counts
    for those that are between two rungs as well. A trial is pruned when the probability that it ends among what the aim
    keeps is below `min_probability`, unless

    - it has not reached a rung after its warm-up;
    - no trial of its group has finished within the limits, and none that is live is likelier to;
    - a trial of its kind that is kept was dominated by it at its rung: then the forecasts contradict what was measured;
    - its architecture would be left with fewer than `quota` trials.

    Args:
        state: With the reports of this block recorded.
    """
    if state.policy.pruner == "none":
        return []
    outlooks = outlooks_of(state, shipped_table())
    doomed = {
        number: found
        for number, found in outlooks.items()
        if found.probability < state.policy.min_probability and _may_be_judged(state.trials[number])
    }
    doomed = _without_hopes(state, doomed, outlooks)
    doomed = _without_quota(state, doomed)
    doomed = _without_contradictions(state, doomed)  # last: whoever is kept for another reason counts
    return [
        Prune(
            number=number,
            reason=reason_of(state, found, outlooks),
            rung=max(state.trials[number].reports),
            expected=found.contender.expected,
        )
        for number, found in sorted(doomed.items())
    ]


def expected_ends(state: State) -> dict[int, Mapping[str, float]]:
    """Return the metrics that each live, measured trial is expected to end with, by number: what a sampler may learn from."""
    if state.policy.pruner == "none":
        return {}
    found = contenders(state, shipped_table())
    return {number: own.expected for number, own in found.items() if not own.is_finished}


def outlooks_of(state: State, table: Table) -> dict[int, Outlook]:
    """Return the outlook of every live trial that has been measured, by number."""
    groups: dict[str, list[Contender]] = {}
    for own in contenders(state, table).values():
        groups.setdefault(state.trials[own.number].group, []).append(own)
    return {
        own.number: outlook(own, group, state.policy.aim)
        for group in groups.values()
        for own in group
        if not own.is_finished
    }


def _may_be_judged(trial: TrialState) -> bool:
    return max(trial.reports) >= trial.course.first_rung


def _without_hopes(state: State, doomed: Mapping[int, Outlook], outlooks: Mapping[int, Outlook]) -> dict[int, Outlook]:
    """Return those doomed trials that are not their group's likeliest way to a feasible end, while it has none.

    A trial that cannot be feasible (a k above the limit) is no hope as long as others are still to come.
    """
    kept = dict(doomed)
    more_to_come = state.next_number < state.policy.n_trials
    for group in {state.trials[number].group for number in doomed}:
        members = [trial for trial in state.trials.values() if trial.group == group]
        if any(is_feasible(trial, state) for trial in members):
            continue
        live = [outlooks[trial.number] for trial in members if trial.number in outlooks]
        hope = max(live, key=_hopefulness)
        if hope.contender.feasible > _NO_HOPE or not more_to_come:
            kept.pop(hope.contender.number, None)
    return kept


def _hopefulness(found: Outlook) -> tuple[float, ...]:
    own = found.contender
    return own.feasible, -own.excess, found.probability, -own.number


def _without_contradictions(state: State, doomed: Mapping[int, Outlook]) -> dict[int, Outlook]:
    """Return those doomed trials that dominate no comparable trial that is kept, at the rung where they are judged."""
    kept = dict(doomed)
    changed = True
    while changed:  # a trial that is kept after all may itself be dominated by another doomed one
        changed = False
        for number in sorted(kept):
            trial = state.trials[number]
            rung = max(trial.reports)
            mine = _costs(trial, rung, state)
            if any(
                dominates(mine, _costs(other, rung, state))
                for other in state.live_trials
                if other.number not in kept
                and rung in other.reports
                and (other.group, other.course.kind) == (trial.group, trial.course.kind)
            ):
                del kept[number]
                changed = True
    return kept


def _costs(trial: TrialState, rung: int, state: State) -> tuple[float, ...]:
    return state.policy.aim.costs(trial.reports[rung], trial.course.target_l0)


def _without_quota(state: State, doomed: Mapping[int, Outlook]) -> dict[int, Outlook]:
    """Return those doomed trials that leave every architecture its quota, the least probable first."""
    if not doomed or not state.policy.quota:
        return dict(doomed)
    left = Counter(trial.architecture for trial in state.trials.values() if trial.status != "pruned" and trial.reports)
    pruned: dict[int, Outlook] = {}
    for number, found in sorted(doomed.items(), key=lambda item: (item[1].probability, -item[0])):
        architecture = state.trials[number].architecture
        if left[architecture] > state.policy.quota:
            left[architecture] -= 1
            pruned[number] = found
    return pruned
